"""Settings written like Python calls, for command lines. Nothing is evaluated."""

import ast
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
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError('** is not a literal')
        positional = [ast.literal_eval(arg) for arg in call.args]
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'plugin {text!r} must be a call with literal values, such as "{example}"') from error
    return call.func.id, positional, options


def call_with(cls: Callable, options: dict[str, Any]) -> Any:
    """Calls with these options.

    Raises:
        ValueError: an option that there is not, or one that is missing.
    """
    known = inspect.signature(cls).parameters
    unknown = sorted(set(options) - set(known))
    missing = [key for key, option in known.items() if option.default is option.empty and key not in options]
    if unknown or missing:
        wrong = f'has no option {unknown[0]!r}' if unknown else f'needs {", ".join(missing)}'
        raise ValueError(f'{cls.__name__} {wrong}; its options are {", ".join(known)}')
    return cls(**options)
