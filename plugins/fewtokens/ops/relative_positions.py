"""Where two tokens of a grid stand to each other."""

import torch
from torch import Tensor

from .grid import Grid
from .tables import kept


@kept
def relative_offsets(grid: Grid) -> Tensor:
    """[H*W, H*W] int64: the row of the table for each pair of tokens of a grid, query first."""
    row, column = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, grid), indexing='ij'))
    return (row[:, None] - row + grid[0] - 1) * (2 * grid[1] - 1) + column[:, None] - column + grid[1] - 1
