from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..ops.matching import merge_pairs
from .base import Grid, Reduced
from .bipartite import BipartiteMerge


@dataclass(frozen=True)
class ToMe(BipartiteMerge):
    """Token merging as published: pairs with the most similar keys, merged between attention and MLP.

    "Token Merging: Your ViT But Faster" (ICLR 2023), https://arxiv.org/abs/2210.09461, for dense outputs: at the end
    every token takes the state of the one that it was merged into. The class token is never merged. Needs a host whose
    blocks are known well enough (`Host.middle`).

    Args:
        after: number of blocks before the block that merges; published is every block, `tuple(range(depth))`.
        tokens: how many to merge away in each, or half of those that are left if that is less.
        until: as for `Hourglass`; published heads get all tokens.
    """

    inside_blocks: ClassVar[bool] = True

    until: str | int = 'backbone'

    def reduce(
        self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None, keys: Tensor | None = None
    ) -> Reduced | None:
        """As of every reducer; `keys` [B, N, D] is what tokens are compared by."""
        r = min(self.tokens, tokens.shape[1] // 2)
        if r == 0:
            return None
        merged, labels, sizes = merge_pairs(tokens, r, sizes=sizes, metric=keys)
        return Reduced(merged, labels, labels, sizes=sizes)
