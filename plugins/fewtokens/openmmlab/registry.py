"""Reducers by name: for configs, and for `--plugin "Hourglass(after=10, grid=(28, 28))"`."""

import inspect
from typing import Any

from mmengine.registry import Registry

from .. import reducers
from ..literals import call_with, read_call

REDUCERS = Registry('reducer', scope='mmengine', locations=['fewtokens.openmmlab'])
"""Register a method of your own with `@REDUCERS.register_module()`."""

for _reducer in (reducers.AvgPool, reducers.BipartiteMerge, reducers.Hourglass, reducers.SharedUpdate):
    REDUCERS.register_module(module=_reducer)


def build_reducer(setting: dict[str, Any] | str | reducers.Reducer) -> reducers.Reducer:
    """A reducer from a config's dict, from a plugin's text, or as it is.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, or a text that isn't a literal call.
    """
    if isinstance(setting, reducers.Reducer):
        return setting
    if isinstance(setting, str):
        return parse_plugin(setting)
    options = dict(setting)
    return call_with(_find(options.pop('type')), options)


def parse_plugin(text: str) -> reducers.Reducer:
    """Reads a reducer written like its Python call, such as "SharedUpdate(after=8, grid=20)". Nothing is evaluated.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, or a text that isn't a literal call.
    """
    name, positional, options = read_call(text, 'Hourglass(after=10, grid=(28, 28))')
    cls = _find(name)
    return call_with(cls, dict(zip(inspect.signature(cls).parameters, positional)) | options)


def _find(name: str | type) -> type:
    cls = REDUCERS.get(name) if isinstance(name, str) else name
    if cls is None:
        raise ValueError(f'there is no reducer {name!r}; there are {", ".join(sorted(REDUCERS.module_dict))}')
    return cls
