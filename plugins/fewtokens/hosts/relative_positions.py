"""Tables of relative positions, for grids of another size than they were trained for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.relative_positions import relative_offsets
from ..ops.tables import kept
from .layout import Grid


def resize_table(table: Tensor, grid: Grid, clusters: Grid) -> Tensor:
    """Resizes a table of relative positions [(2H-1)*(2W-1) + extra, heads] bilinearly to another grid's.

    The extra entries at its end, between the class token and the others, are kept.
    """
    if tuple(grid) == tuple(clusters):
        return table
    rows, columns = (2 * side - 1 for side in grid)
    image = table[: rows * columns].T.reshape(1, -1, rows, columns)
    size = tuple(2 * side - 1 for side in clusters)
    resized = F.interpolate(image.float(), size, mode='bilinear', align_corners=False).to(table.dtype)
    return torch.cat([resized.flatten(2)[0].T, table[rows * columns :]])


def table_bias(table: Tensor, grid: Grid, clusters: Grid, class_token: bool = False) -> Tensor:
    """What a table of a grid's relative positions adds to the logits of clusters, [1, heads, N, N].

    Args:
        table: [(2H-1)*(2W-1), heads], with a class token three rows more at its end, see `relative_index`.
        grid: (H, W), what the table is for.
        clusters: (h, w) of the nominal cluster grid, on which the reduced tokens stand.
        class_token: whether there is one before them.
    """
    index = (relative_index if class_token else relative_offsets)(clusters, device=table.device)
    bias = resize_table(table, grid, clusters)[index.flatten()]
    return bias.view(1, *index.shape, -1).permute(0, 3, 1, 2)


@kept
def relative_index(grid: Grid) -> Tensor:
    """[1 + H*W, 1 + H*W] rows of the table for each pair of tokens, the class token first.

    Relative positions first; then class token to token, token to class token, class token to itself.
    """
    entries = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    index = F.pad(relative_offsets(grid, device=torch.device('cpu')), (1, 0, 1, 0))
    index[0], index[:, 0] = entries, entries + 1
    index[0, 0] = entries + 2
    return index
