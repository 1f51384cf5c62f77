"""Settings written like Python calls, for command lines. Nothing is evaluated."""

import ast
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


def read_call(text: str, example: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Takes a call with literal values apart: its name, its positional arguments and its options.

    Raises:
        ValueError: the text is anything else.
    """
    try:
        call = ast.parse(text.strip(), mode='eval').body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError('not a call')
        positional = [ast.literal_eval(arg) for arg in call.args]
        options: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None:
                raise ValueError('** is not a literal')
            options[keyword.arg] = ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'plugin {text!r} must be a call with literal values, such as "{example}"') from error
    return call.func.id, positional, options


def call_with(cls: Callable, options: dict[str, Any], name: str | None = None) -> Any:
    """Calls with these options.

    Args:
        name: as a setting calls it; its own if left out.

    Raises:
        ValueError: an option that there is not, one that is missing, or one of the wrong type.
    """
    parameters = inspect.signature(cls).parameters.values()
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {option.name: option for option in parameters if option.kind not in rest}
    unknown = sorted(set(options) - set(known))
    if any(option.kind == inspect.Parameter.VAR_KEYWORD for option in parameters):
        unknown = []
    missing = [key for key, option in known.items() if option.default is option.empty and key not in options]
    if unknown or missing:
        wrong = f'has no option {unknown[0]!r}' if unknown else f'needs {", ".join(missing)}'
        raise ValueError(f'{name or cls.__name__} {wrong}; its options are {", ".join(known)}')
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f'{name or cls.__name__} has an option of the wrong type among {options}: {error}') from error


def changed_options(settings: Any) -> dict[str, Any]:
    """What a dataclass's call has to say: the options that have no default, or another value than theirs."""
    options = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.init and value != default:
            options[field.name] = value
    return options
