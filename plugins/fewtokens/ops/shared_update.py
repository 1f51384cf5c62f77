"""Clustering for SharedUpdate: hard members, so that every token can take its own cluster's update."""

import torch
from torch import Tensor

from .backend import use_kernels
from .grid import Grid, pair
from .labels import mean_by_label, sum_by_label, take_by_label
from .precision import in_float32
from .temperature import temperature_of
from .tiles import check_clustering, kernels_fit, make_tiles, pool_tokens


def merge_tokens(
    x: Tensor,
    grid: Grid,
    clusters: Grid,
    iters: int = 5,
    window: int = 3,
    sizes: Tensor | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor, Tensor]:
    """Groups the tokens of a grid around few centers and takes the groups' means.

    Like `cluster_tokens`, with a temperature that follows the data (half the lower median, per sample, of the squared
    distance from a token to its nearest allowed pooled center). Then each token belongs to its nearest allowed center
    alone. A group without members keeps its soft center and has size 0.

    Args:
        x: tokens [B, H*W, C], row by row.
        grid: (H, W) of the tokens.
        clusters: (gh, gw) of the groups, at most as many as tokens; where they have more rows or columns than the
            grid, pooled ones repeat.
        iters: soft iterations before tokens are assigned.
        window: side, in centers, of the neighbourhood that a token may join.
        sizes: how much each token weighs in its group's mean [B, H*W], 1 if left out.
        backend: 'torch', 'triton' for kernels of a CUDA device, or 'auto': kernels where they can run.

    Returns:
        means [B, gh*gw, C], labels [B, H*W] int64, and the groups' sizes [B, gh*gw], sums of their members'.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    check_clustering(x, grid, clusters, iters, window)
    if use_kernels(backend, x, sizes) and kernels_fit(x, window):
        from .triton import shared_update as kernels

        return kernels.merge_tokens(x, grid, clusters, iters, window, sizes)
    return _merge(x, grid, clusters, iters, window, sizes)


def merge_lengthened(
    x: Tensor,
    grid: Grid,
    clusters: Grid,
    iters: int = 5,
    window: int = 3,
    sizes: Tensor | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `merge_tokens`, its means multiplied by the factors of `lengthen_means`; its spreads [B, gh*gw] come last."""
    check_clustering(x, grid, clusters, iters, window)
    if use_kernels(backend, x, sizes) and kernels_fit(x, window):
        from .triton import shared_update as kernels

        return kernels.merge_lengthened(x, grid, clusters, iters, window, sizes)
    means, labels, merged = _merge(x, grid, clusters, iters, window, sizes)
    means, spreads = lengthened(x, labels, means, merged, sizes)
    return means, labels, merged, spreads


def lengthened(
    x: Tensor, labels: Tensor, means: Tensor, merged: Tensor, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means multiplied by the factors of `lengthen_means`, and its spreads."""
    factors, spreads = lengthen_means(x, labels, means, merged, sizes)
    return means * factors.to(means.dtype), spreads


@torch.no_grad()
@in_float32
def lengthen_means(
    x: Tensor, labels: Tensor, means: Tensor, merged: Tensor, sizes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How much longer a group's token shall be than the mean of its members, and how far they lie apart.

    A mean is shorter than what it is the mean of, and what later blocks add then weighs too much. Halfway (in
    proportions) to the members' mean length measures best: at full length it weighs too little.

    Args:
        x: tokens [B, N, C].
        labels: each one's group [B, N].
        means: of the groups [B, M, C].
        merged: sizes of the groups [B, M].
        sizes: of the tokens [B, N], 1 if left out.

    Returns:
        Factors [B, M, 1] and the members' variance around their mean [B, M], averaged over channels; 1 and 0 for a
        group without members. Neither has a gradient.
    """
    squares = x.detach().square().sum(-1)
    weights = torch.ones_like(squares) if sizes is None else sizes
    totals = sum_by_label(torch.stack([squares.sqrt(), squares], -1) * weights[..., None], labels, means.shape[1])
    length, square = (totals / merged.clamp_min(torch.finfo(merged.dtype).tiny)[..., None]).unbind(-1)
    own = means.detach().square().sum(-1)
    factors = (length / own.sqrt()).sqrt()
    known = (merged > 0) & (own > 0)
    spreads = (square - own).clamp_min(0) / x.shape[2]
    return torch.where(known, factors, 1)[..., None], torch.where(merged > 0, spreads, 0)


def restore_updated(before: Tensor, tokens: Tensor, centers: Tensor, labels: Tensor, backend: str = 'auto') -> Tensor:
    """Tokens before their merge [B, N, C], each with the change of its group's token [B, M, C] from its center."""
    if use_kernels(backend, before, tokens, centers, labels):
        from .triton import shared_update as kernels

        return kernels.restore_updated(before, tokens, centers, labels)
    return before + take_by_label(tokens - centers, labels)


@in_float32
def _merge(
    x: Tensor, grid: Grid, clusters: Grid, iters: int, window: int, sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    with torch.no_grad():
        # Detached as well: forward-mode derivatives go through no_grad.
        centers, labels = _assign(x.detach(), grid, clusters, iters, window)
    means, merged = mean_by_label(x, labels, sizes, centers.shape[1], centers)
    return means, labels, merged


def _assign(x: Tensor, grid: Grid, clusters: Grid, iters: int, window: int) -> tuple[Tensor, Tensor]:
    tiles = make_tiles(pair(grid), pair(clusters), window, x.device)
    tiled = tiles.gather(x)
    centers = pool_tokens(x, grid, clusters)
    similar = tiles.similarities(tiled, centers)
    temperature = temperature_of(x, similar, tiles)[:, :, None, None]
    for _ in range(iters):
        # Subtracting the best before dividing keeps a tiny temperature from overflowing.
        weights = ((similar - similar.amax(dim=3, keepdim=True)) / temperature).softmax(dim=3)
        centers = tiles.average(tiled, weights, centers)
        similar = tiles.similarities(tiled, centers)
    return centers, tiles.labels(similar)
