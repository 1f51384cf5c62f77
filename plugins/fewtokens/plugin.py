"""What can be put on a model and taken off again: reducers of an image's tokens, clusterings of a video's."""

import inspect
from typing import Any, Protocol

from torch import nn

from .attach import attach
from .attachment import Attachment
from .literals import call_with, changed_options, read_call
from .reducers import METHODS, Reducer


class Attaches(Protocol):
    """A plugin that knows its own way onto a model; its text is its name."""

    @property
    def after(self) -> Any:
        """The block, or blocks, after which it begins."""

    @property
    def kind(self) -> str:
        """The method, as a legend names it."""

    @property
    def label(self) -> str:
        """The settings in short."""

    def attach_to(self, model: nn.Module) -> Attachment:
        """Puts it on a model until the attachment is removed; a ValueError says why it doesn't fit."""


Plugin = Reducer | Attaches

SHORT_NAMES = dict(temperature='T')


def attach_plugin(model: nn.Module, plugin: Plugin) -> Attachment:
    """Puts a plugin of either kind on a model; raises what `attach` or its own `attach_to` does."""
    return plugin.attach_to(model) if hasattr(plugin, 'attach_to') else attach(model, plugin)


def parse_reducer(text: str) -> Reducer:
    """Reads one of the package's reducers, written like its Python call. Nothing is evaluated.

    OpenMMLab's registry knows others as well: `fewtokens.openmmlab.parse_plugin`.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, or a text that isn't a literal call.
    """
    name, positional, options = read_call(text, 'SharedUpdate(after=8, grid=20)')
    known = {method.__name__: method for method in METHODS}
    if name not in known:
        raise ValueError(f'there is no reducer {name!r}; there are {", ".join(known)}')
    method = known[name]
    return call_with(method, dict(zip(inspect.signature(method).parameters, positional)) | options)


def kind_of(plugin: Plugin) -> str:
    """The method, as a legend names it."""
    return type(plugin).__name__ if isinstance(plugin, Reducer) else plugin.kind


def text_of(reducer: Reducer) -> str:
    """A reducer's Python call, with the options that differ from their defaults."""
    options = ', '.join(f'{name}={value!r}' for name, value in changed_options(reducer).items())
    return f'{type(reducer).__name__}({options})'


def label_of(plugin: Plugin) -> str:
    """The settings in short: those without a default by value alone, others by name where they differ from theirs."""
    if not isinstance(plugin, Reducer):
        return plugin.label
    needed = {
        name for name, option in inspect.signature(type(plugin)).parameters.items() if option.default is option.empty
    }
    return ', '.join(
        _short(value) if name in needed else f'{SHORT_NAMES.get(name, name)}={_short(value)}'
        for name, value in changed_options(plugin).items()
    )


def _short(value: Any) -> str:
    """A square grid by its side; places in a model are never two that are equal."""
    if not isinstance(value, tuple):
        return str(value)
    if len(value) == 2 and isinstance(value[0], int) and value[0] == value[1]:
        return str(value[0])
    return f'({", ".join(map(_short, value))})'
