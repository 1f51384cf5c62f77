"""The neighbourhood structure of grid clustering, as a few batched matrix products.

A token may join only the centers near its home, so most of the N x M token-center pairs are never needed. Tokens are
sorted by home center into tiles of a few by a few centers; all tokens of a tile meet the same candidates, the tile's
centers and a border of window // 2 around them. Distances and sums then are batched products of [tokens of a tile,
candidates of a tile], and cost grows with N * window**2 instead of N * M.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .grid import Grid
from .labels import sum_by_label
from .tables import kept

TILE = 4
"""Side of a tile in centers: larger ones waste products on pairs that are not allowed, smaller ones batch badly."""


@dataclass(frozen=True)
class Tiles:
    """Which tokens and centers stand in which tile; T tiles of P tokens (the last may be padding) and Q candidates."""

    tokens: Tensor
    """[T * P] index of the token; padding repeats the tile's last token."""
    real: Tensor
    """[T, P, 1] float: 0 for padding."""
    candidates: Tensor
    """[T, Q] index of the center."""
    forbidden: Tensor
    """[T, P, Q] bool: the candidate is too far from the token's home."""
    positions: Tensor
    """[N] where each token stands among the T * P."""
    n_centers: int

    def gather(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, T, P, C], tokens tile by tile."""
        return x.index_select(1, self.tokens).unflatten(1, self.forbidden.shape[:2])

    def similarities(self, tiled: Tensor, centers: Tensor) -> Tensor:
        """2 x.c - |c|**2 of tokens [B, T, P, C] and centers [B, M, C]: minus the squared distance, up to |x|**2.

        Returns [B, T, P, Q], minus infinity where the pair is not allowed.
        """
        # Of each center once, not in each tile that it is near. Laid out in one way: pooled ones come in another, where
        # sums are rounded otherwise in a batch, and of equal centers another may be the nearest.
        centers = centers.contiguous()
        twice, squares = (self._near(each) for each in (centers + centers, centers.square().sum(-1, keepdim=True)))
        similar = torch.bmm(tiled.flatten(0, 1), twice.flatten(0, 1).transpose(1, 2)).unflatten(0, tiled.shape[:2])
        return similar.sub_(squares.transpose(2, 3)).masked_fill_(self.forbidden, -torch.inf)

    def _near(self, values: Tensor) -> Tensor:
        """[B, M, C] of centers -> [B, T, Q, C] of each tile's candidates."""
        return values.index_select(1, self.candidates.flatten()).unflatten(1, self.candidates.shape)

    def average(self, tiled: Tensor, weights: Tensor, centers: Tensor) -> Tensor:
        """Means of tokens [B, T, P, C] by weights [B, T, P, Q], added up over tiles: [B, M, C].

        A center so far from its tokens that all its weights underflow stays where it is.
        """
        weights = weights * self.real
        sums = (weights.flatten(0, 1).transpose(1, 2) @ tiled.flatten(0, 1)).unflatten(0, tiled.shape[:2])
        totals = self._add_up(weights.sum(dim=2)[..., None])
        return torch.where(totals > 0, self._add_up(sums) / totals.clamp_min(torch.finfo(totals.dtype).tiny), centers)

    def labels(self, similar: Tensor) -> Tensor:
        """[B, N]: the allowed center most similar to each token."""
        best = similar.argmax(dim=3)
        center = self.candidates[None, :, None].expand(*best.shape, -1).gather(3, best[..., None])
        return center.flatten(1)[:, self.positions]

    def _add_up(self, values: Tensor) -> Tensor:
        """[B, T, Q, C] of each tile's candidates -> [B, M, C]."""
        return sum_by_label(values.flatten(1, 2), self.candidates.flatten().expand(values.shape[0], -1), self.n_centers)


def make_tiles(grid: Grid, clusters: Grid, window: int, device: torch.device) -> Tiles:
    tokens, real, candidates, forbidden, positions = _tile_tables(grid, clusters, window, device=device)
    return Tiles(tokens, real, candidates, forbidden, positions, clusters[0] * clusters[1])


@kept
def _tile_tables(grid: Grid, clusters: Grid, window: int) -> tuple[Tensor, ...]:
    """The tables of `Tiles`, in the order of its fields."""
    rows, columns = (_tiles_along(size, cells, window) for size, cells in zip(grid, clusters))
    tokens, real = (_outer(rows[i], columns[i], combine) for i, combine in ((0, (grid[1], 1)), (1, None)))
    candidates = _outer(rows[2], columns[2], (clusters[1], 1))
    allowed = rows[3][:, None, :, None, :, None] & columns[3][None, :, None, :, None, :]
    allowed = allowed.reshape(*tokens.shape, candidates.shape[1])
    positions = tokens.new_zeros(grid[0] * grid[1])
    positions[tokens[real]] = torch.arange(tokens.numel()).view_as(tokens)[real]
    return tokens.flatten(), real[..., None].float(), candidates, ~allowed, positions


def _tiles_along(size: int, cells: int, window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One axis: tokens [T, P], whether each is real [T, P], candidates [T, Q], allowed pairs [T, P, Q]."""
    reach = window // 2
    # Where the border of a tile's centers is all others, one tile needs no more products than several.
    n_tiles = 1 if cells <= TILE + 2 * reach else -(-cells // TILE)
    edges = torch.arange(n_tiles + 1) * cells // n_tiles
    home = torch.arange(size) * cells // size
    starts = torch.searchsorted(home, edges)
    length = int((starts[1:] - starts[:-1]).max())
    index = starts[:-1, None] + torch.arange(length)
    real = index < starts[1:, None]
    tokens = torch.minimum(index, starts[1:, None] - 1)
    n_candidates = min(TILE + 2 * reach, cells)
    first = (edges[:-1] - reach).clamp(0, cells - n_candidates)
    candidates = first[:, None] + torch.arange(n_candidates)
    allowed = (home[tokens][:, :, None] - candidates[:, None, :]).abs() <= reach
    return tokens, real, candidates, allowed


def _outer(rows: Tensor, columns: Tensor, strides: tuple[int, int] | None) -> Tensor:
    """[T, P] of rows and [S, O] of columns -> [T * S, P * O]: flat indices, or the conjunction of booleans."""
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    both = rows & columns if strides is None else rows * strides[0] + columns * strides[1]
    return both.flatten(2).flatten(0, 1)


def pool_tokens(x: Tensor, grid: Grid, clusters: Grid) -> Tensor:
    """Adaptive average pooling of the token grid: [B, H*W, C] -> [B, gh*gw, C]."""
    # Unflattened last, one image would have strides that the fast kernel isn't known by.
    image = x.unflatten(1, grid).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(image, clusters).flatten(2).transpose(1, 2)


def check_clustering(x: Tensor, grid: Grid, clusters: Grid, iters: int, window: int) -> None:
    """Raises a ValueError that names what doesn't fit."""
    if x.ndim != 3 or x.shape[0] == 0:
        raise ValueError(f'tokens have shape {tuple(x.shape)}; [B, H*W, C] with B >= 1 is needed')
    if x.shape[1] != grid[0] * grid[1]:
        raise ValueError(f'{x.shape[1]} tokens do not fill a grid of {grid[0]} x {grid[1]}')
    if min(clusters) < 1 or clusters[0] * clusters[1] > grid[0] * grid[1]:
        raise ValueError(f'clusters {clusters} must be at least 1 and at most as many as the tokens of a grid {grid}')
    if window < 1 or iters < 0:
        raise ValueError(f'window={window} must be at least 1 and iters={iters} at least 0')


def kernels_fit(x: Tensor, window: int) -> bool:
    """Whether the kernels of grid clustering take tokens of that width, and so many candidates for each."""
    return x.shape[2] <= 4096 and window // 2 <= 7
