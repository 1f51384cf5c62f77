"""A clustering between the blocks of a visual tower, and what later blocks must know of it."""

from typing import Any, Optional

from torch import Tensor, nn

from ..hosts.attention import key_mask
from .segments import SegmentClustering
from .towers import Tower


class ClusteringStep(nn.Module):
    """A clustering with what it must know of one forward pass.

    Args:
        clustering: what is done to the tokens.
        videos: B.
        mask: [B, T] bool, True where a frame, or segment of the step before, is real; None if all are.
        tower: whose blocks it stands between.
        grid: rows and columns of a frame's patches; None if they stand on no grid.
        counting: whether to count the tokens that each token stands for.
        previous: the step before.

    Attributes:
        done: whether it has run.
    """

    def __init__(
        self,
        clustering: SegmentClustering,
        videos: int,
        mask: Tensor | None,
        tower: Tower,
        grid: tuple[int, int] | None,
        counting: bool,
        previous: Optional['ClusteringStep'],
    ) -> None:
        super().__init__()
        self.clustering = clustering
        self.videos, self.mask, self.tower, self.grid = videos, mask, tower, grid
        self.counting, self.sizes, self.bias = counting, None, None
        self.done = False
        # No submodule: the tower's list has it.
        self._previous = (previous,)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = x if self.tower.batch_first else x.transpose(0, 1)
        tokens = x.unflatten(0, (self.videos, -1))
        given = (tokens, self.mask, self.tower.num_prefix_tokens, self.grid)
        if self.counting:
            (previous,) = self._previous
            tokens, self.sizes = self.clustering(*given, previous and previous.sizes, return_sizes=True)
            self.bias = key_mask(self.sizes.flatten(0, 1).log().to(x.dtype), self.tower.mask_heads)
        else:
            tokens = self.clustering(*given)
        self.done = True
        tokens = tokens.flatten(0, 1)
        return tokens if self.tower.batch_first else tokens.transpose(0, 1)

    def around(self, block: nn.Module) -> nn.Module:
        """A later block, with attention that counts tokens if the clustering wants it."""
        return _CountingBlock(block, self) if self.clustering.size_bias else block


class _CountingBlock(nn.Module):
    def __init__(self, block: nn.Module, step: ClusteringStep) -> None:
        super().__init__()
        self.block, self.step = block, step

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Visual towers have no mask of their own, and rotary positions are refused: nothing is lost of the arguments.
        return self.block(x, attn_mask=self.step.bias)
