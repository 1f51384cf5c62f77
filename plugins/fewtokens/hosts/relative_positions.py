"""Tables of relative positions, for grids of another size than they were trained for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import Grid


def resize_table(table: Tensor, grid: Grid, clusters: Grid) -> Tensor:
    """Resizes a table of relative positions [(2H-1)*(2W-1) + extra, heads] bilinearly to another grid's.

    The extra entries at its end, between the class token and the others, are kept.
    """
    rows, columns = (2 * side - 1 for side in grid)
    image = table[: rows * columns].T.reshape(1, -1, rows, columns)
    size = tuple(2 * side - 1 for side in clusters)
    resized = F.interpolate(image.float(), size, mode='bilinear', align_corners=False).to(table.dtype)
    return torch.cat([resized.flatten(2)[0].T, table[rows * columns :]])
