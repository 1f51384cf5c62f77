"""Modules that share everything with others but some of their parts: those, which others use too, are not touched."""

import copy
from collections.abc import Mapping
from types import MethodType

from torch import nn


def with_parts(module: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A module that shares everything with another but some of its parts, which are given by their paths."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    within: dict[str, dict[str, nn.Module]] = {}
    for path, part in parts.items():
        name, _, rest = path.partition('.')
        within.setdefault(name, {})[rest] = part
    for name, inner in within.items():
        twin._modules[name] = inner[''] if '' in inner else with_parts(module._modules[name], inner)
    for key, value in vars(module).items():
        # Such as a forward of the user's own.
        if isinstance(value, MethodType) and value.__self__ is module:
            setattr(twin, key, MethodType(value.__func__, twin))
    return twin
