"""A temperature that follows the data: how far tokens lie from the centers they may join."""

import torch
from torch import Tensor

from .grid import Grid, pair
from .precision import in_float32
from .tiles import Tiles, check_clustering, make_tiles, pool_tokens

LEAST = 1e-20
"""Tokens that all equal their center would make it 0: any positive temperature does then."""


@torch.no_grad()
@in_float32
def fitting_temperature(x: Tensor, grid: Grid, clusters: Grid, window: int) -> Tensor:
    """[B, 1, 1]: half the lower median of the squared distances of tokens to their nearest allowed pooled centers.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    check_clustering(x, grid, clusters, 0, window)
    x = x.detach()
    tiles = make_tiles(pair(grid), pair(clusters), window, x.device)
    similar = tiles.similarities(tiles.gather(x), pool_tokens(x, grid, clusters))
    return temperature_of(x, similar, tiles)[:, :, None]


def temperature_of(x: Tensor, similar: Tensor, tiles: Tiles) -> Tensor:
    """The same, [B, 1], from the similarities of tokens and pooled centers."""
    squared = (x.square().sum(-1) - similar.amax(dim=3).flatten(1)[:, tiles.positions]).clamp_min_(0)
    return (_lower_median(squared) / 2).clamp_min(LEAST)


def _lower_median(values: Tensor) -> Tensor:
    """[B, N] -> [B, 1]: nanmedian's, of an operation that ONNX has."""
    known = values.isnan().logical_not().sum(dim=1, keepdim=True)
    return values.sort(dim=1).values.gather(1, (known - 1).clamp_min(0) // 2)
