"""What a reduction puts in the place of calls. Objects, not closures: they can be copied and pickled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .hosts import AttentionContext, Middle, ReplacedCall

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
    """Stands in for the calls of a block's parts: its MLP works on merged tokens, and returns them for all.

    What the MLP adds to all tokens of a group is the same, and to their mean too: so the block's output is merged after
    it, and nothing between is lost.
    """

    reduction: 'Reduction'
    index: int
    parts: Middle

    def place(self) -> list[ReplacedCall]:
        parts = self.parts
        return [
            ReplacedCall(parts.norm, self._norm),
            ReplacedCall(parts.mlp_norm, self._mlp_norm),
            ReplacedCall(parts.mlp, self._mlp),
        ]

    def _norm(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        normed = forward(tokens)
        self.reduction.compare_inside(self.index, self.parts.mean_keys(normed))
        return normed

    def _mlp_norm(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        return forward(self.reduction.merge_inside(self.index, tokens))

    def _mlp(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        return self.reduction.expand_inside(self.index, forward(tokens))


@dataclass
class BlockContext:
    """Tells a block's attention its context."""

    reduction: 'Reduction'
    index: int

    def __call__(self) -> AttentionContext | None:
        return self.reduction.attention_context(self.index)
