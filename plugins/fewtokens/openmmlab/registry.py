"""Reducers by name: for configs, and for `--plugin "Hourglass(after=10, grid=(28, 28))"`."""

import ast
import inspect
from typing import Any

from mmengine.registry import Registry

from .. import reducers

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
    return _build(options.pop('type'), options)


def parse_plugin(text: str) -> reducers.Reducer:
    """Reads a reducer written like its Python call, such as "SharedUpdate(after=8, grid=20)". Nothing is evaluated.

    Raises:
        ValueError: an unknown reducer, an option that it doesn't have, or a text that isn't a literal call.
    """
    try:
        call = ast.parse(text.strip(), mode='eval').body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError('not a call')
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError('** is not a literal')
        positional = [ast.literal_eval(arg) for arg in call.args]
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f'plugin {text!r} must be a call with literal values, such as "Hourglass(after=10, grid=(28, 28))"'
        ) from error
    cls = _find(call.func.id)
    return _build(cls, dict(zip(inspect.signature(cls).parameters, positional)) | options)


def _find(name: str | type) -> type:
    cls = REDUCERS.get(name) if isinstance(name, str) else name
    if cls is None:
        raise ValueError(f'there is no reducer {name!r}; there are {", ".join(sorted(REDUCERS.module_dict))}')
    return cls


def _build(name: str | type, options: dict[str, Any]) -> reducers.Reducer:
    cls = _find(name)
    known = inspect.signature(cls).parameters
    unknown = sorted(set(options) - set(known))
    missing = [key for key, option in known.items() if option.default is option.empty and key not in options]
    if unknown or missing:
        wrong = f'has no option {unknown[0]!r}' if unknown else f'needs {", ".join(missing)}'
        raise ValueError(f'{cls.__name__} {wrong}; its options are {", ".join(known)}')
    return cls(**options)
