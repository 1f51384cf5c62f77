"""Calls that are replaced and put back."""

import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

from torch import nn


class ReplacedCall:
    """Stands in for a module's method until removed; several may stand on one module and go in any order.

    Args:
        module: whose method is replaced, on this instance alone.
        function: called with the module, the method that was there before, and the call's arguments.
        innermost: stand in for the module's own method, below other replacements that may call it.
        name: of the method.
    """

    previous: Callable | None
    """What stood there before; None for the module's own method."""

    def __init__(self, module: nn.Module, function: Callable, innermost: bool = False, name: str = 'forward') -> None:
        self.module, self.function, self.name = module, function, name
        self.removed = False
        top = module.__dict__.get(name)
        if innermost and isinstance(top, ReplacedCall):
            while isinstance(top.previous, ReplacedCall):
                top = top.previous
            self.previous, top.previous = top.previous, self
        else:
            self.previous = top
            module.__dict__[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.removed:
            return self.call_previous(*args, **kwargs)
        return self.function(self.module, self.call_previous, *args, **kwargs)

    def call_previous(self, *args: Any, **kwargs: Any) -> Any:
        if self.previous is not None:
            return self.previous(*args, **kwargs)
        return getattr(type(self.module), self.name)(self.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """Of the method: trainers look there for which columns of a data set a model takes."""
        return inspect.signature(self.previous or getattr(type(self.module), self.name).__get__(self.module))

    @property
    def __code__(self) -> CodeType:
        """Of the module's own method: torch.export names its arguments by it."""
        return getattr(type(self.module), self.name).__code__

    def remove(self) -> None:
        if self.removed:
            return
        self.removed = True
        above = self.module.__dict__.get(self.name)
        if above is self:
            if self.previous is None:
                del self.module.__dict__[self.name]
            else:
                self.module.__dict__[self.name] = self.previous
            return
        while isinstance(above, ReplacedCall) and above.previous is not self:
            above = above.previous
        if isinstance(above, ReplacedCall):
            above.previous = self.previous
        # Else somebody has wrapped the call since, as accelerate does, and holds on to it: it calls through.


def is_own(forward: Callable) -> bool:
    """Whether the method that a replacing function is given is the module's own, and no other replacement."""
    replaced = getattr(forward, '__self__', None)
    return isinstance(replaced, ReplacedCall) and replaced.previous is None
