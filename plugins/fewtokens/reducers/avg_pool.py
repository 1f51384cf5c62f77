from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.precision import in_float32
from ..ops.tiles import pool_tokens
from .base import Grid, Reduced, Reducer, as_grid, check_after, check_until, reduces


@dataclass(frozen=True)
class AvgPool(Reducer):
    """Average pooling of the token grid and bilinear interpolation back: the plainest baseline.

    Args:
        after: number of blocks before the pooling.
        grid: tokens left over the image; an integer means a square.
        until: 'head', 'backbone', 'auto' or a number of blocks, as for `Hourglass`.
    """

    grid: int | Grid
    until: str | int = 'auto'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'grid', as_grid(self.grid))
        check_after(self.after)
        check_until(self.until, self.after, ('auto', 'head', 'backbone'))

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        if grid is None or not reduces(self._grid, grid):
            return None
        rows, columns = (
            torch.arange(size, device=tokens.device) * cells // size for size, cells in zip(grid, self._grid)
        )
        labels = (rows[:, None] * self._grid[1] + columns).flatten().expand(tokens.shape[0], -1)
        return Reduced(in_float32(pool_tokens)(tokens, grid, self._grid), labels, grid, self._grid)

    def restore(self, tokens: Tensor, record: Grid) -> Tensor:
        return _interpolate(tokens, self._grid, record)


@in_float32
def _interpolate(tokens: Tensor, grid: Grid, size: Grid) -> Tensor:
    image = tokens.transpose(1, 2).unflatten(2, grid)
    return F.interpolate(image, size, mode='bilinear', align_corners=False).flatten(2).transpose(1, 2)
