"""Groups that grow by merging the pairs that lose least, for GradualUpdate.

The criterion is that of Ward, "Hierarchical Grouping to Optimize an Objective Function" (1963): how much a merge adds
to the squared distances of tokens from their groups' means. Which pairs are looked at is bipartite, as in "Token
Merging: Your ViT But Faster" (ICLR 2023): every second token offers itself to the others.
"""

import torch
from torch import Tensor

from .backend import is_compiling, use_kernels
from .labels import mean_by_label
from .matching import kernels_fit, labels_of_pairs
from .precision import in_float32
from .shared_update import lengthened

PART = 8
"""A round merges at most one token in so many away: groups found in more rounds are better."""


def merge_nearest(
    x: Tensor, n_groups: int, sizes: Tensor | None = None, backend: str = 'auto'
) -> tuple[Tensor, Tensor, Tensor]:
    """Groups tokens, wherever they stand, and takes the groups' means.

    Args:
        x: tokens [B, N, C].
        n_groups: how many groups to make, 1 to N.
        sizes: how much each token weighs [B, N], 1 if left out.
        backend: 'torch', 'triton' for kernels of a CUDA device, or 'auto': kernels where they can run.

    Returns:
        means [B, n_groups, C], labels [B, N] int64, and the groups' sizes [B, n_groups], sums of their members'.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    if _in_kernels(x, n_groups, sizes, backend):
        from .triton import ward as kernels

        return kernels.merge_nearest(x, n_groups, PART, sizes)
    return _merge(x, n_groups, sizes)


def merge_nearest_lengthened(
    x: Tensor, n_groups: int, sizes: Tensor | None = None, backend: str = 'auto'
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `merge_nearest`, its means lengthened by `lengthen_means`, whose spreads [B, n_groups] come last."""
    if _in_kernels(x, n_groups, sizes, backend):
        from .triton import ward as kernels

        return kernels.merge_lengthened(x, n_groups, PART, sizes)
    means, labels, merged = _merge(x, n_groups, sizes)
    means, spreads = lengthened(x, labels, means, merged, sizes)
    return means, labels, merged, spreads


def _in_kernels(x: Tensor, n_groups: int, sizes: Tensor | None, backend: str) -> bool:
    if x.ndim != 3 or x.shape[0] == 0 or not 1 <= n_groups <= x.shape[1]:
        raise ValueError(f'{n_groups} groups of tokens {tuple(x.shape)}: [B, N, C] and 1 to N groups are needed')
    if sizes is not None and sizes.shape != x.shape[:2]:
        raise ValueError(f'sizes {tuple(sizes.shape)} of tokens {tuple(x.shape)}: [B, N] are needed')
    return use_kernels(backend, x, sizes) and kernels_fit(x) and n_groups < x.shape[1]


@in_float32
def _merge(x: Tensor, n_groups: int, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    with torch.no_grad():
        # Detached as well: forward-mode derivatives go through no_grad.
        # A round's number of tokens follows from all before: as symbols these take the compiler minutes.
        labels = (group_operation if is_compiling() else _group)(x.detach(), n_groups, sizes)
    means, merged = mean_by_label(x, labels, sizes, n_groups)
    return means, labels, merged


def _group(x: Tensor, n_groups: int, sizes: Tensor) -> Tensor:
    """labels [B, N] int64."""
    count = int(x.shape[1])
    labels = torch.arange(count, device=x.device).expand(x.shape[0], -1)
    while count > n_groups:
        away = min(count - n_groups, -(-count // PART))
        joined = match_nearest(x, away, sizes)
        labels, count = joined.gather(1, labels), count - away
        if count > n_groups:
            x, sizes = mean_by_label(x, joined, sizes, count)
    return labels


@torch.library.custom_op('fewtokens::group_nearest', mutates_args=())
def group_operation(x: Tensor, n_groups: int, sizes: Tensor) -> Tensor:
    return _group(x, n_groups, sizes).contiguous()


@group_operation.register_fake
def _(x, n_groups, sizes):
    return x.new_empty(x.shape[:2], dtype=torch.int64)


def match_nearest(x: Tensor, r: int, sizes: Tensor) -> Tensor:
    """Chooses r tokens to merge away, those whose merge with another adds least to the squares around means.

    Args:
        x: tokens [B, N, C].
        r: at most half of N.
        sizes: [B, N].

    Returns:
        labels [B, N] int64, as from `match_pairs`.
    """
    squares, inverse = x.square().sum(2), sizes.clamp_min(torch.finfo(sizes.dtype).tiny).reciprocal()
    # In place: a number for each pair is much memory to ask for anew in each step.
    cost = torch.bmm(x[:, ::2], (-2 * x[:, 1::2]).transpose(1, 2)).add_(squares[:, None, 1::2])
    cost.add_(squares[:, ::2, None]).div_(inverse[:, ::2, None] + inverse[:, None, 1::2])
    least, target = cost.min(dim=2)
    return labels_of_pairs(-least, target, r, x.shape[1])
