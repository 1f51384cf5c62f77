"""Spectral clustering whose clusters are named by medoids, as CenterCLIP uses it, https://arxiv.org/abs/2205.00823."""

import torch
from torch import Tensor

from .medoids import choose_medoids
from .precision import in_float32

GRAPHS = ('heat', 'knn', 'looped_heat', 'heat_knn')


@torch.no_grad()
@in_float32
def spectral_medoids(
    x: Tensor,
    k: int,
    graph: str = 'heat',
    sigma: float = 2.0,
    knn: int | None = None,
    normalize: bool = False,
    positions: Tensor | None = None,
    window: float | tuple[float, ...] | None = None,
    max_iters: int = 100,
    tol: float = 1e-6,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Picks k of each sample's points, one for each cluster of their graph.

    The rows of the k eigenvectors of smallest eigenvalue of the graph's symmetric normalised Laplacian, each divided by
    its norm, are clustered by k-medoids (Ng, Jordan and Weiss, NeurIPS 2001). It starts from the point of largest L2
    norm in x, as `k_medoids` does, since the rows all have norm one; of equally good members the first is the medoid.
    The result does not depend on the signs and the basis that the solver gives the eigenvectors.

    Args:
        x: points [B, N, C].
        k: number of medoids, 1 to N.
        graph: how points are linked.
            'heat', the default: all, with weights exp(-d^2 / (2 sigma^2)).
            'knn': each with its nearest ones, by weight one where both are among the other's nearest, a half where one
            is.
            'looped_heat': as 'heat', and each point with itself, by weight one. CenterCLIP's heat kernel.
            'heat_knn': as 'looped_heat', where one is among the other's nearest. CenterCLIP's nearest neighbours.
        sigma: the width of the heat kernel, in units of distance.
        knn: number of neighbours; 10 if None. A point is one of its own for 'heat_knn', and not for 'knn'. Clamped.
        normalize: measure distances between the points divided by their norms.
        positions: coordinates [N, D] of the points, in space and time for instance; needed by `window`.
        window: link only points whose positions differ by no more than this, in each of the D dimensions.
        max_iters: see `k_medoids`.
        tol: see `k_medoids`.
        backend: see `k_medoids`.

    Returns:
        medoids [B, k] int64, ascending indices of points, and labels [B, N] int64, each point's position in medoids.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    _check(x, k, graph, sigma, knn, positions, window)
    norms = x.norm(dim=2)
    if normalize:
        x = x / (norms[:, :, None] + 1e-6)
    # Points that aren't finite have no links; the rest is clustered as usual.
    finite = x.isfinite().all(dim=2)
    # In float64: with tokens far apart, many eigenvalues are tiny, and which are the k smallest would rest on rounding.
    x = torch.where(finite[:, :, None], x, 0).double()
    near = finite[:, :, None] & finite[:, None, :]
    if graph in ('heat', 'knn'):
        near &= ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    links = near if window is None or positions is None else near & _within(positions.to(x.device), window)
    knn = 10 if knn is None else knn
    if graph == 'heat_knn':
        links = links & _among_nearest(x, near, knn)
    affinity = _neighbours(x, links, knn) if graph == 'knn' else _heat(x, links, sigma)
    rows = _smallest_eigenvectors(affinity, links.any(dim=2), k)
    rows = rows / rows.norm(dim=2, keepdim=True).clamp_min(1e-12)
    norms = norms.nan_to_num(nan=torch.inf)
    return choose_medoids(_rounded_distances(rows), norms, k, max_iters, tol, backend=backend)


def _check(
    x: Tensor, k: int, graph: str, sigma: float, knn: int | None, positions: Tensor | None, window: object
) -> None:
    if x.ndim != 3 or x.shape[0] == 0:
        raise ValueError(f'points have shape {tuple(x.shape)}; [B, N, C] with B >= 1 is needed')
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f'k={k} must be between 1 and the number of points, {x.shape[1]}')
    if graph not in GRAPHS:
        raise ValueError(f'graph={graph!r} must be one of {", ".join(GRAPHS)}')
    if not sigma > 0:
        raise ValueError(f'sigma={sigma} must be positive')
    if knn is not None and (graph not in ('knn', 'heat_knn') or knn < 1):
        raise ValueError(f"knn={knn} must be at least 1, and is for graph='knn' or 'heat_knn'")
    if window is not None and (positions is None or positions.shape[:1] != x.shape[1:2]):
        shape = None if positions is None else tuple(positions.shape)
        raise ValueError(f'window={window} needs positions [{x.shape[1]}, D]; they are {shape}')


def _within(positions: Tensor, window: float | tuple[float, ...]) -> Tensor:
    """[N, N] bool: points whose positions differ by no more than the window."""
    window = torch.as_tensor(window, device=positions.device)
    return ((positions[:, None] - positions[None]).abs() <= window).all(dim=2)


def _heat(x: Tensor, near: Tensor, sigma: float) -> Tensor:
    """[B, N, N]: the heat kernel's weights divided by the square roots of both points' sums."""
    logits = _squared_distances(x).div_(-2 * sigma**2).masked_fill_(~near, -torch.inf)
    # By logarithms: far apart, as tokens are, all of a point's weights may be too small for a float.
    half = logits.logsumexp(dim=2).clamp_min(torch.finfo(x.dtype).min) / 2
    return logits.sub_(half[:, :, None]).sub_(half[:, None, :]).exp_()


def _among_nearest(x: Tensor, near: Tensor, knn: int) -> Tensor:
    """[B, N, N] bool: one of the two points is among the other's nearest, itself counted; all that are equally near."""
    distances = _squared_distances(x).masked_fill_(~near, torch.inf)
    distances.diagonal(dim1=1, dim2=2).zero_()  # not by rounding farther than its equals
    farthest = distances.kthvalue(min(knn, x.shape[1]), dim=2, keepdim=True).values
    nearest = distances <= farthest
    return nearest | nearest.transpose(1, 2)


def _neighbours(x: Tensor, near: Tensor, knn: int) -> Tensor:
    """[B, N, N]: the symmetrised nearest-neighbour graph, divided by the square roots of both points' sums."""
    distances = _squared_distances(x).masked_fill_(~near, torch.inf)
    nearest = distances.topk(min(knn, x.shape[1] - 1), largest=False)
    linked = torch.zeros_like(distances).scatter_(2, nearest.indices, nearest.values.isfinite().to(x.dtype))
    weights = (linked + linked.transpose(1, 2)) / 2
    root = weights.sum(dim=2).sqrt()
    root = torch.where(root > 0, root, 1)
    return weights / (root[:, :, None] * root[:, None, :])


def _smallest_eigenvectors(affinity: Tensor, linked: Tensor, k: int) -> Tensor:
    """[B, N, k]: of the Laplacian 1 - affinity; a point that isn't linked [B, N] is a component of its own."""
    laplacian = -affinity
    laplacian.diagonal(dim1=1, dim2=2).add_(linked)
    # LAPACK's solver for some of them, which torch doesn't have, is faster from about here on.
    if laplacian.device.type == 'cpu' and laplacian.shape[1] >= 256 and 5 * k <= laplacian.shape[1]:
        try:
            from scipy.linalg import eigh
        except ImportError:
            pass
        else:
            lowest = dict(subset_by_index=(0, k - 1), check_finite=False)
            return torch.stack([torch.from_numpy(eigh(sample.numpy(), **lowest)[1]) for sample in laplacian])
    return torch.linalg.eigh(laplacian).eigenvectors[:, :, :k]


def _rounded_distances(rows: Tensor) -> Tensor:
    """[B, N, N]: distances whose squares are rounded far above the solver's noise, so that equal ones are equal."""
    return _squared_distances(rows).mul_(2**20).round_().div_(2**20).sqrt_().float()


def _squared_distances(x: Tensor) -> Tensor:
    """[B, N, N] of points in float64, whose rounding is far below what counts here."""
    squares = x.square().sum(dim=2)
    products = x @ x.transpose(1, 2)
    return products.mul_(-2).add_(squares[:, :, None]).add_(squares[:, None, :]).clamp_min_(0)
