"""k-medoids with a deterministic start (KKZ), as CenterCLIP uses it, https://arxiv.org/abs/2205.00823."""

from itertools import pairwise

import torch
from torch import Tensor

from .backend import use_kernels
from .precision import in_float32

_FAR = 1e30
_ROWS, _ROWS_OF_CUDA = 64, 512
"""Of a sample's distances that are measured at once: on a CPU few, which its caches hold."""
_AT_ONCE = 2**26
"""Distances of all samples, at most."""
_EQUAL = 2.0**-40
"""Points whose squared distance is below this part of their squared lengths are equal, but for float64's rounding."""


@torch.no_grad()
@in_float32
def k_medoids(
    x: Tensor,
    k: int,
    metric: str = 'euclidean',
    p: float = 2.0,
    normalize: bool = False,
    max_iters: int = 100,
    tol: float = 1e-6,
    wait: bool = True,
    exact: bool = False,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Picks k of each sample's points so that every point is near one of them.

    The first medoid is the point of largest L2 norm, each next one the point farthest from its nearest chosen one.
    Then points join their nearest medoid and each cluster takes the member with the smallest sum of distances to the
    others, until no medoid moves. A sample's result does not depend on the rest of the batch.

    Of equals the first is taken, such as of the two members of a cluster of two, on every device and with any number
    of threads: but for 2-norms on a CPU. There `torch.cdist` leaves some distance between a point and itself, by which
    the published code, and so this, decides; `exact` rules it out.

    Args:
        x: points [B, N, C].
        k: number of medoids, 1 to N.
        metric: 'euclidean' (a p-norm of the difference) or 'cosine' (one minus the cosine of the angle).
        p: the norm's order, for 'euclidean'.
        normalize: cluster the points divided by their norms; the start still goes by the norms as they were.
        max_iters: rounds at most.
        tol: a medoid that moved no farther than this counts as at rest.
        wait: end when no medoid moves, for which a device is waited for each round. False runs all of `max_iters`,
            with the same result, and reads nothing back, as a CUDA graph needs it: let there be few. A kernel ends then
            and reads nothing back, whatever this is.
        exact: measure 2-norms on a CPU too as exactly as all others are.
        backend: 'torch', 'triton' for a kernel of a CUDA device that does all but the distances, or 'auto': the kernel
            where it can run.

    Returns:
        medoids [B, k] int64, ascending indices of points, and labels [B, N] int64, each point's position in medoids.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    _check(x, k, metric, p)
    norms = x.norm(dim=2)
    if normalize or metric == 'cosine':
        x = x / (norms[:, :, None] + 1e-6)
    # A point that isn't finite is far from everything, itself included; the rest is clustered as usual.
    distances = _pairwise_distances(x, metric, p, exact).nan_to_num_(nan=_FAR, posinf=_FAR)
    return choose_medoids(distances, norms, k, max_iters, tol, wait, backend)


def choose_medoids(
    distances: Tensor,
    norms: Tensor,
    k: int,
    max_iters: int = 100,
    tol: float = 1e-6,
    wait: bool = True,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """k-medoids on distances [B, N, N], starting from the point of largest norm [B, N]; returns as `k_medoids`."""
    if use_kernels(backend, distances, norms) and _kernel_fits(distances):
        from .triton import medoids as kernels

        return kernels.choose_medoids(distances, norms, k, max_iters, tol)
    medoids = _farthest_first(distances, norms, k)
    active = torch.arange(len(medoids), device=medoids.device)
    for _ in range(max_iters):
        among, old = (distances, medoids) if len(active) == len(medoids) else (distances[active], medoids[active])
        moved = _best_members(among, _nearest(among, old), k)
        shift = among.flatten(1).gather(1, moved * among.shape[2] + old)
        # By index too: a point that isn't finite is far from itself.
        still = ((moved == old) | (shift <= tol)).all(dim=1)
        moved = torch.where(still[:, None], old, moved)
        if distances.is_meta:
            break  # costs are counted there: rounds have no products, and there is nothing to read back
        if not wait:
            medoids = moved
            continue
        medoids[active] = moved
        active = active[~still]
        if not len(active):
            break
    medoids = medoids.sort(dim=1).values
    return medoids, _nearest(distances, medoids)


def _kernel_fits(distances: Tensor) -> bool:
    # A row of distances lies in a program's registers; a shift in half precision is compared with `tol` as rounded.
    return distances.dtype == torch.float32 and distances.shape[1] <= 16384


def _check(x: Tensor, k: int, metric: str, p: float) -> None:
    if x.ndim != 3 or x.shape[0] == 0:
        raise ValueError(f'points have shape {tuple(x.shape)}; [B, N, C] with B >= 1 is needed')
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f'k={k} must be between 1 and the number of points, {x.shape[1]}')
    if metric not in ('euclidean', 'cosine'):
        raise ValueError(f"metric={metric!r} must be 'euclidean' or 'cosine'")
    if not p > 0:
        raise ValueError(f'p={p} must be positive')


def _pairwise_distances(x: Tensor, metric: str, p: float, exact: bool) -> Tensor:
    """[B, N, N] float32; a sample's must not rest on the rest of the batch."""
    if metric == 'euclidean' and p == 2 and x.device.type == 'cpu' and not exact:
        # cdist leaves some distance between a point and itself. That is what decides in the published code between the
        # two members of a cluster of two, which are equally central.
        return torch.stack([torch.cdist(sample, sample) for sample in x])
    # In float64, whose rounding does not show in float32: what is equal comes out equal on every device.
    x = x.double()
    count = x.shape[1]
    distances = x.new_zeros(len(x), count, count, dtype=torch.float32)
    # How many rows are measured at once rests on a sample alone: products of other shapes may be rounded otherwise.
    rows = min(count, _ROWS_OF_CUDA if x.device.type == 'cuda' else _ROWS)
    samples = max(1, _AT_ONCE // (rows * count))
    for some, measured in zip(x.split(samples), distances.split(samples)):
        _measure_lower(some, metric, p, rows, measured)
    lower = distances.tril_()
    return lower + lower.tril(-1).transpose(1, 2)


def _measure_lower(x: Tensor, metric: str, p: float, rows: int, out: Tensor) -> None:
    """Writes distances [B, N, N], up to the diagonal and some beyond: half are enough, as they are symmetric."""
    squares = x.square().sum(dim=2)
    parts = -(-x.shape[1] // rows)
    for start, end in pairwise(x.shape[1] * part // parts for part in range(parts + 1)):
        some, others = slice(start, end), slice(end)
        if metric == 'euclidean' and p != 2:
            out[:, some, others] = torch.cdist(x[:, some], x[:, others], p)
            continue
        both = squares[:, some, None] + squares[:, None, others]
        apart = torch.baddbmm(both, x[:, some], x[:, others].transpose(1, 2), alpha=-2)
        # Where points are equal, zeros too; infinite ones are not.
        equal = apart < (_EQUAL * both).clamp_min_(torch.finfo(x.dtype).tiny)
        measured = apart.sqrt() if metric == 'euclidean' else 1 - (both - apart) / 2
        out[:, some, others] = measured.masked_fill_(equal, 0)


def _farthest_first(distances: Tensor, norms: Tensor, k: int) -> Tensor:
    """KKZ: [B, k] distinct points, each the farthest from the nearest of those before it."""
    rows = torch.arange(len(norms), device=norms.device)
    chosen = [norms.argmax(dim=1)]
    # Scattered, not assigned: a number assigned at indices is copied to a device, which waits.
    nearest = distances[rows, chosen[0]].scatter_(1, chosen[0][:, None], -torch.inf)
    for _ in range(k - 1):
        chosen.append(nearest.argmax(dim=1))
        # A chosen point stays at minus infinity: duplicates are not chosen twice.
        nearest = torch.minimum(nearest, distances[rows, chosen[-1]]).scatter_(1, chosen[-1][:, None], -torch.inf)
    return torch.stack(chosen, dim=1)


def _nearest(distances: Tensor, medoids: Tensor) -> Tensor:
    """[B, N]: the position in medoids [B, k] of each point's nearest; a medoid's own is itself."""
    to_medoids = distances.gather(1, medoids[:, :, None].expand(-1, -1, distances.shape[2]))
    labels = to_medoids.argmin(dim=1)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return labels.scatter_(1, medoids, own)


def _best_members(distances: Tensor, labels: Tensor, k: int) -> Tensor:
    """[B, k]: of each cluster, the member with the smallest sum of distances to the cluster's members."""
    # In float64, where sums are exact: in which order distances are added must not show.
    sums = torch.where(labels[:, :, None] == labels[:, None, :], distances, 0).sum(dim=2, dtype=torch.float64)
    best = sums.new_full((len(labels), k), torch.inf)
    best.scatter_reduce_(1, labels, sums, 'amin')
    # Of equals the first: the smallest index among the members that reach the cluster's minimum.
    index = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    candidate = torch.where(sums <= best.gather(1, labels), index, labels.shape[1])
    return labels.new_full((len(labels), k), labels.shape[1]).scatter_reduce_(1, labels, candidate, 'amin')
