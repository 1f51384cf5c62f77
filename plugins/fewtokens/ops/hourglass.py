"""Token clustering and reconstruction of "Expediting Large-Scale Vision Transformer for Dense Prediction without
Fine-tuning" (NeurIPS 2022), https://arxiv.org/abs/2210.01035."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .grid import Grid
from .labels import flat_rows
from .precision import in_float32
from .tiles import check_clustering, make_tiles, pool_tokens


@in_float32
def cluster_tokens(
    x: Tensor, grid: Grid, clusters: Grid, iters: int = 5, window: int = 5, temperature: float = 50.0
) -> tuple[Tensor, Tensor]:
    """Clusters the tokens of a grid softly, each among the centers near it.

    Centers start as adaptive average pooling of the grid. In each iteration a token spreads over the centers within
    `window // 2` rows and columns of its home by softmax of minus squared distance over temperature, and each center
    becomes the weighted mean of its tokens. Gradients flow to the tokens through the last mean, not through weights.

    Args:
        x: tokens [B, H*W, C], row by row.
        grid: (H, W) of the tokens.
        clusters: (gh, gw) of the centers, at most the grid.
        iters: iterations; with 0 the centers stay pooled.
        window: side, in centers, of the neighbourhood that a token may join.
        temperature: in squared token units; smaller is harder.

    Returns:
        centers [B, gh*gw, C] and labels [B, H*W] int64, the nearest allowed center of each token.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    check_clustering(x, grid, clusters, iters, window)
    if not temperature > 0:
        raise ValueError(f'temperature={temperature} must be positive')
    tiles = make_tiles(tuple(grid), tuple(clusters), window, x.device)
    tiled = tiles.gather(x)
    fixed = tiled.detach()
    centers = pool_tokens(x, grid, clusters)
    for step in range(iters):
        weights = (tiles.similarities(fixed, centers.detach()) / temperature).softmax(dim=3)
        centers = tiles.average(tiled if step == iters - 1 else fixed, weights, centers.detach())
    labels = tiles.labels(tiles.similarities(fixed, centers.detach()))
    return centers, labels


@in_float32
def reconstruct_tokens(
    z: Tensor, before: Tensor, centers: Tensor, k: int = 20, temperature: float = 50.0, normalize: str = 'sum'
) -> Tensor:
    """Brings processed centers back to full resolution: each token from its k nearest of all centers.

    Args:
        z: processed centers [B, M, D].
        before: tokens [B, N, C] as they were when clustered.
        centers: centers [B, M, C] as they were when clustered.
        k: how many centers a token is made from, at most M are used.
        temperature: weights are exp(-squared distance / temperature), normalised.
        normalize: 'sum': weights add up to one, as in the paper; 'l2': their squares do, as in the published code.

    Returns:
        tokens [B, N, D]. Gradients flow to z; the weights have none.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    if z.shape[:2] != centers.shape[:2] or before.shape[::2] != centers.shape[::2]:
        shapes = ', '.join(str(tuple(t.shape)) for t in (z, before, centers))
        raise ValueError(f'z [B, M, D], before [B, N, C] and centers [B, M, C] are needed; their shapes are {shapes}')
    return apply_weights(z, *reconstruction_weights(before, centers, k, temperature, normalize))


@torch.no_grad()
@in_float32
def reconstruction_weights(
    before: Tensor, centers: Tensor, k: int, temperature: float, normalize: str
) -> tuple[Tensor, Tensor]:
    """Indices [B, N, k] of the centers that each token is made from, and their weights [B, N, k] float32."""
    if k < 1 or not temperature > 0 or normalize not in ('sum', 'l2'):
        raise ValueError(
            f"k={k} must be at least 1, temperature={temperature} positive and normalize={normalize!r} 'sum' or 'l2'"
        )
    before, centers = before.detach(), centers.detach()  # forward-mode derivatives go through no_grad
    bias = centers.square().sum(-1).neg()[:, None].expand(-1, before.shape[1], -1)
    similar = torch.baddbmm(bias, before, centers.transpose(1, 2), alpha=2)
    best, nearest = similar.topk(min(k, centers.shape[1]), dim=2)
    # |x|**2 and everything else that a token's distances share cancels: a token far from all centers keeps its weights.
    weights = (best / temperature).softmax(dim=2)
    return nearest, weights if normalize == 'sum' else weights / weights.norm(dim=2, keepdim=True)


@in_float32
def apply_weights(z: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    """Sums centers z [B, M, D] by indices and weights [B, N, k]: [B, N, D] in z's type."""
    rows = flat_rows(nearest, z.shape[1]).flatten(0, 1)
    summed = F.embedding_bag(rows, z.flatten(0, 1), per_sample_weights=weights.to(z).flatten(0, 1), mode='sum')
    return summed.unflatten(0, nearest.shape[:2])
