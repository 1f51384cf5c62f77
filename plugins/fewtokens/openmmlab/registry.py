"""Reducers by name: for configs, and for `--plugin "Hourglass(after=10, grid=(28, 28))"`."""

import inspect
from typing import Any

from mmengine.registry import Registry

from .. import reducers
from ..literals import call_with, changed_options, read_call
from ..plugin import Plugin
from ..video.clustered import VideoPlugin
from ..video.segments import SegmentClustering
from ..video.settings import NAME, ClusteringSettings

REDUCERS = Registry('reducer', scope='mmengine', locations=['fewtokens.openmmlab'])
"""Register a method of your own with `@REDUCERS.register_module()`."""

for _reducer in reducers.METHODS:
    REDUCERS.register_module(module=_reducer)
REDUCERS.register_module(name=NAME, module=ClusteringSettings)


def build_reducer(setting: dict[str, Any] | str | Plugin) -> Plugin:
    """A reducer, or a clustering of videos, from a config's dict, from a plugin's text, or as it is.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, a text that isn't a literal call, or none of
            these.
    """
    if isinstance(setting, (reducers.Reducer, VideoPlugin)):
        return setting
    if isinstance(setting, str):
        return parse_plugin(setting)
    if not isinstance(setting, dict) or 'type' not in setting:
        raise ValueError(
            f"reducer={setting!r} must be a dict with a type, such as dict(type='Hourglass', after=10, grid=(28, 28)), "
            'a reducer, or its text'
        )
    return _build(_find(setting['type']), _options(setting))


def parse_plugin(text: str) -> Plugin:
    """Reads a plugin written like its Python call, such as "SharedUpdate(after=8, grid=20)". Nothing is evaluated.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, or a text that isn't a literal call.
    """
    name, positional, options = read_call(text, 'Hourglass(after=10, grid=(28, 28))')
    cls = _find(name)
    if cls is ClusteringSettings:
        return VideoPlugin.parse(text)
    return _build(cls, dict(zip(inspect.signature(cls).parameters, positional)) | options)


def as_setting(plugin: Plugin) -> dict[str, Any]:
    """A plugin, other than a schedule of unlike clusterings, as a config's dict: what `build_reducer` makes it of."""
    if isinstance(plugin, VideoPlugin):
        (call,) = plugin.calls
        return dict(type=NAME, **call.changed())
    cls = type(plugin)
    name = next((name for name, known in REDUCERS.module_dict.items() if known is cls), cls.__name__)
    return dict(type=name, **changed_options(plugin))


def as_text(setting: Any) -> str:
    """A plugin's setting in a config, written like its Python call: a name for people to read."""
    if not isinstance(setting, dict):
        return str(setting)
    kind = setting['type']
    options = ', '.join(f'{name}={value!r}' for name, value in _options(setting).items())
    # Configs may name a class by its module as well.
    return f'{str(getattr(kind, "__name__", kind)).rpartition(".")[2]}({options})'


def _build(cls: type, options: dict[str, Any]) -> Plugin:
    if cls is ClusteringSettings:
        return VideoPlugin((call_with(cls, options, NAME),))
    return call_with(cls, options)


def _options(setting: dict[str, Any]) -> dict[str, Any]:
    # MMEngine notes a scope in what a config takes from another package's.
    return {name: value for name, value in setting.items() if name not in ('type', '_scope_')}


def _find(name: str | type) -> type:
    cls = REDUCERS.get(name) if isinstance(name, str) else name
    if cls is SegmentClustering:
        return ClusteringSettings
    # MMEngine finds anything that can be imported.
    if not (isinstance(cls, type) and issubclass(cls, (reducers.Reducer, ClusteringSettings))):
        known = ', '.join([*sorted(set(REDUCERS.module_dict) - {NAME}), f'for videos {NAME}'])
        raise ValueError(f'there is no reducer {name!r}; there are {known}')
    return cls
