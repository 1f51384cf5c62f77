"""Token clustering and reconstruction of "Expediting Large-Scale Vision Transformer for Dense Prediction without
Fine-tuning" (NeurIPS 2022), https://arxiv.org/abs/2210.01035."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .backend import use_kernels
from .grid import Grid, pair
from .labels import flat_rows
from .precision import in_float32, widen
from .tiles import check_clustering, kernels_fit, make_tiles, pool_tokens


def cluster_tokens(
    x: Tensor,
    grid: Grid,
    clusters: Grid,
    iters: int = 5,
    window: int = 5,
    temperature: float | Tensor = 50.0,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Clusters the tokens of a grid softly, each among the centers near it.

    Centers start as adaptive average pooling of the grid. In each iteration a token spreads over the centers within
    `window // 2` rows and columns of its home by softmax of minus squared distance over temperature, and each center
    becomes the weighted mean of its tokens. Gradients flow to the tokens through the last mean, not through weights.

    Args:
        x: tokens [B, H*W, C], row by row.
        grid: (H, W) of the tokens.
        clusters: (gh, gw) of the centers, at most as many as tokens; where they have more rows or columns than the
            grid, pooled ones repeat.
        iters: iterations; with 0 the centers stay pooled.
        window: side, in centers, of the neighbourhood that a token may join.
        temperature: in squared token units; smaller is harder. One, or one a sample, [B, 1, 1].
        backend: 'torch', 'triton' for kernels of a CUDA device, or 'auto': kernels where they can run.

    Returns:
        centers [B, gh*gw, C] and labels [B, H*W] int64, the nearest allowed center of each token.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    centers, labels = cluster_widely(x, grid, clusters, iters, window, temperature, backend)
    return centers.to(x.dtype), labels


def cluster_widely(
    x: Tensor, grid: Grid, clusters: Grid, iters: int, window: int, temperature: float | Tensor, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """As `cluster_tokens`, with centers that are float32 at least."""
    check_clustering(x, grid, clusters, iters, window)
    per_sample = temperature if isinstance(temperature, Tensor) else None
    if per_sample is None and not temperature > 0:
        raise ValueError(f'temperature={temperature} must be positive')
    if use_kernels(backend, x, per_sample) and kernels_fit(x, window):
        from .triton import hourglass as kernels

        number = 1.0 if per_sample is not None else float(temperature)
        return kernels.cluster_tokens(x, grid, clusters, iters, window, per_sample, number)
    return _cluster(widen(x), grid, clusters, iters, window, temperature)


@in_float32
def _cluster(
    x: Tensor, grid: Grid, clusters: Grid, iters: int, window: int, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    if isinstance(temperature, Tensor):
        temperature = temperature.view(-1, 1, 1, 1)
    tiles = make_tiles(pair(grid), pair(clusters), window, x.device)
    tiled = tiles.gather(x)
    fixed = tiled.detach()
    centers = pool_tokens(x, grid, clusters)
    for step in range(iters):
        weights = (tiles.similarities(fixed, centers.detach()) / temperature).softmax(dim=3)
        centers = tiles.average(tiled if step == iters - 1 else fixed, weights, centers.detach())
    labels = tiles.labels(tiles.similarities(fixed, centers.detach()))
    return centers, labels


def reconstruct_tokens(
    z: Tensor,
    before: Tensor,
    centers: Tensor,
    k: int = 20,
    temperature: float | Tensor = 50.0,
    normalize: str = 'sum',
    backend: str = 'auto',
) -> Tensor:
    """Brings processed centers back to full resolution: each token from its k nearest of all centers.

    Args:
        z: processed centers [B, M, D].
        before: tokens [B, N, C] as they were when clustered.
        centers: centers [B, M, C] as they were when clustered.
        k: how many centers a token is made from, at most M are used.
        temperature: weights are exp(-squared distance / temperature), normalised.
        normalize: 'sum': weights add up to one, as in the paper; 'l2': their squares do, as in the published code.
        backend: as for `cluster_tokens`.

    Returns:
        tokens [B, N, D]. Gradients flow to z; the weights have none.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    if z.shape[:2] != centers.shape[:2] or before.shape[::2] != centers.shape[::2]:
        shapes = ', '.join(str(tuple(t.shape)) for t in (z, before, centers))
        raise ValueError(f'z [B, M, D], before [B, N, C] and centers [B, M, C] are needed; their shapes are {shapes}')
    return apply_weights(z, *reconstruction_weights(before, centers, k, temperature, normalize, backend), backend)


def reconstruction_weights(
    before: Tensor, centers: Tensor, k: int, temperature: float | Tensor, normalize: str, backend: str = 'auto'
) -> tuple[Tensor, Tensor]:
    """Indices [B, N, k] of the centers that each token is made from, and their weights [B, N, k] float32."""
    per_sample = temperature if isinstance(temperature, Tensor) else None
    if k < 1 or (per_sample is None and not temperature > 0) or normalize not in ('sum', 'l2'):
        raise ValueError(
            f"k={k} must be at least 1, temperature={temperature} positive and normalize={normalize!r} 'sum' or 'l2'"
        )
    # Nothing of this has a gradient. Detached as well: forward-mode derivatives go through no_grad.
    with torch.no_grad():
        before, centers = before.detach(), centers.detach()
        k = min(k, centers.shape[1])
        if use_kernels(backend, before, centers, per_sample):
            from .triton import hourglass as kernels

            number = 1.0 if per_sample is not None else float(temperature)
            return kernels.reconstruction_weights(before, centers, k, per_sample, number, normalize == 'l2')
        return _weigh(before, centers, k, temperature, normalize)


@in_float32
def _weigh(
    before: Tensor, centers: Tensor, k: int, temperature: float | Tensor, normalize: str
) -> tuple[Tensor, Tensor]:
    if isinstance(temperature, Tensor):
        temperature = temperature.view(-1, 1, 1)
    bias = centers.square().sum(-1).neg()[:, None].expand(-1, before.shape[1], -1)
    similar = torch.baddbmm(bias, before, centers.transpose(1, 2), alpha=2)
    best, nearest = similar.topk(k, dim=2)
    # |x|**2 and everything else that a token's distances share cancels: a token far from all centers keeps its weights.
    weights = (best / temperature).softmax(dim=2)
    return nearest, weights if normalize == 'sum' else weights / weights.norm(dim=2, keepdim=True)


def apply_weights(z: Tensor, nearest: Tensor, weights: Tensor, backend: str = 'auto') -> Tensor:
    """Sums centers z [B, M, D] by indices and weights [B, N, k]: [B, N, D] in z's type."""
    if use_kernels(backend, z, nearest, weights):
        from .triton import hourglass as kernels

        return kernels.apply_weights(z, nearest, weights)
    return _sum_weighted(z, nearest, weights)


@in_float32
def _sum_weighted(z: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    rows = flat_rows(nearest, z.shape[1]).flatten(0, 1)
    summed = F.embedding_bag(rows, z.flatten(0, 1), per_sample_weights=weights.to(z).flatten(0, 1), mode='sum')
    return summed.unflatten(0, nearest.shape[:2])
