"""What a reduction puts in the place of calls. Objects, not closures: they can be copied and pickled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .hosts import AttentionContext, ReplacedCall

if TYPE_CHECKING:
    from .reduction import Reduction


@dataclass
class Replacement:
    """Stands in for a call whose module needs no telling."""

    method: Callable

    def __call__(self, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.method(forward, *args, **kwargs)


class Seat(ReplacedCall):
    """Stands in for a block's call."""

    def __init__(self, block: nn.Module, reduction: 'Reduction', index: int) -> None:
        super().__init__(block, reduction.run_block)
        self.index = index

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.removed:
            return self.call_previous(*args, **kwargs)
        return self.function(self.index, self.call_previous, *args, **kwargs)


@dataclass
class Way:
    """Stands in for a method of the backbone by which a forward pass may come."""

    reduction: 'Reduction'
    name: str

    def __call__(self, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.reduction.go(self.name, forward, *args, **kwargs)


@dataclass
class Inside:
    """What stands between a block's attention and its MLP."""

    reduction: 'Reduction'
    index: int

    def compare(self, keys: Tensor) -> None:
        self.reduction.compare_inside(self.index, keys)

    def merge(self, tokens: Tensor) -> Tensor:
        return self.reduction.merge_inside(self.index, tokens)

    def expand(self, tokens: Tensor) -> Tensor:
        return self.reduction.expand_inside(self.index, tokens)


@dataclass
class BlockContext:
    """Tells a block's attention its context."""

    reduction: 'Reduction'
    index: int

    def __call__(self) -> AttentionContext | None:
        return self.reduction.attention_context(self.index)
