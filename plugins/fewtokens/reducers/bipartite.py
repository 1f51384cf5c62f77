from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..ops.labels import take_by_label
from ..ops.matching import merge_pairs
from .base import Grid, Reduced, Reducer, as_places, check_at_least, check_until


@dataclass(frozen=True)
class BipartiteMerge(Reducer):
    """Merges the most similar pairs of block outputs, a few after each of several blocks.

    The matching is that of "Token Merging: Your ViT But Faster" (ICLR 2023), https://arxiv.org/abs/2210.09461, applied
    to whole blocks' outputs. At the end every token takes the state of the one that it was merged into.

    Args:
        after: number of blocks before the merging; several to merge at each.
        tokens: how many tokens to merge away each time, at most half of those that are left.
        until: 'head', 'backbone', 'auto' or a number of blocks, as for `Hourglass`.
    """

    restores: ClassVar[str] = 'copy'
    keeps_grid: ClassVar[bool] = False
    size_bias = True

    tokens: int
    until: str | int = 'auto'

    def __post_init__(self) -> None:
        check_at_least(1, tokens=self.tokens)
        object.__setattr__(self, 'after', as_places(self.after))
        check_until(self.until, self.after, ('auto', 'head', 'backbone'))

    def stages(self) -> tuple['BipartiteMerge', ...]:
        afters = (self.after,) if isinstance(self.after, int) else self.after
        return tuple(replace(self, after=after) for after in afters)

    def left(self, tokens: int) -> int:
        return tokens - self.tokens

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        if tokens.shape[1] < 2 * self.tokens:
            return None
        merged, labels, sizes = merge_pairs(tokens, self.tokens, sizes=sizes)
        return Reduced(merged, labels, labels, sizes=sizes)

    def restore(self, tokens: Tensor, record: Tensor) -> Tensor:
        return take_by_label(tokens, record)
