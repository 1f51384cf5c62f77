"""Bipartite soft matching of "Token Merging: Your ViT But Faster" (ICLR 2023), https://arxiv.org/abs/2210.09461."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .backend import use_kernels
from .labels import mean_by_label
from .precision import in_float32


def match_pairs(metric: Tensor, r: int, num_prefix_tokens: int = 0, backend: str = 'auto') -> Tensor:
    """Chooses r tokens to merge away: every second token offers itself to the most similar of the others.

    Args:
        metric: what tokens are compared by, by cosine, [B, N, C].
        r: how many tokens to merge away, at most half of those that may be.
        num_prefix_tokens: that many tokens at the front are neither merged away nor merged into.
        backend: 'torch', 'triton' for kernels of a CUDA device, or 'auto': kernels where they can run.

    Returns:
        labels [B, N] int64: each token's place among the N - r that remain: tokens of even index that were not merged
        away in their order, then all of odd index.

    Raises:
        ValueError: shapes or settings don't fit.
    """
    _check(metric, r, num_prefix_tokens)
    if _in_kernels(backend, r, metric.detach()):
        from .triton import matching as kernels

        return kernels.match_pairs(metric, r, num_prefix_tokens)
    return _match(metric, r, num_prefix_tokens)


def _check(metric: Tensor, r: int, num_prefix_tokens: int) -> None:
    n_free = metric.shape[1] - num_prefix_tokens
    if metric.ndim != 3 or metric.shape[0] == 0 or not 0 <= r <= max(0, n_free // 2) or num_prefix_tokens < 0:
        raise ValueError(
            f'r={r} of tokens {tuple(metric.shape)} with {num_prefix_tokens} prefix tokens: [B, N, C] with B >= 1 and '
            f'r between 0 and {max(0, n_free // 2)} are needed'
        )


def kernels_fit(x: Tensor) -> bool:
    """Whether the kernels of bipartite matching take so many tokens of that width."""
    return x.shape[1] <= 16384 and x.shape[2] <= 4096


def _in_kernels(backend: str, r: int, metric: Tensor, *others: Tensor | None) -> bool:
    tensors = [each for each in (metric, *others) if each is not None]
    return use_kernels(backend, *tensors) and r > 0 and all(kernels_fit(each) for each in tensors if each.ndim == 3)


@torch.no_grad()
@in_float32
def _match(metric: Tensor, r: int, num_prefix_tokens: int) -> Tensor:
    unit = F.normalize(metric, dim=2)
    similar = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    similar[:, : (num_prefix_tokens + 1) // 2] = -torch.inf
    similar[:, :, : num_prefix_tokens // 2] = -torch.inf
    best, target = similar.nan_to_num(nan=-2.0, neginf=-torch.inf).max(dim=2)
    return labels_of_pairs(best, target, r, metric.shape[1])


def labels_of_pairs(best: Tensor, target: Tensor, r: int, n_tokens: int) -> Tensor:
    """Merges the r best pairs.

    Args:
        best: how good each token of even index thinks its best pair is, [B, ceil(N / 2)].
        target: the other token of that pair: which one of odd index, of the same shape.

    Returns:
        labels [B, N] int64, as `match_pairs` describes them.
    """
    away = torch.zeros_like(best).scatter(1, best.topk(r, dim=1).indices, 1.0).bool()
    n_kept = best.shape[1] - r
    even = torch.where(away, n_kept + target, (~away).cumsum(dim=1) - 1)
    odd = (n_kept + torch.arange(n_tokens // 2, device=best.device)).expand(best.shape[0], -1)
    # Interleaved; of an odd number of tokens the last has no partner beside it.
    return torch.stack([even, F.pad(odd, (0, n_tokens % 2))], dim=2).flatten(1)[:, :n_tokens]


def merge_pairs(
    x: Tensor,
    r: int,
    num_prefix_tokens: int = 0,
    sizes: Tensor | None = None,
    metric: Tensor | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor, Tensor]:
    """Merges r tokens into their most similar partners, as means weighted by sizes.

    Args:
        x: tokens [B, N, C].
        r: how many tokens to merge away.
        num_prefix_tokens: that many tokens at the front stay as they are.
        sizes: how many original tokens each stands for [B, N], 1 if left out.
        metric: what tokens are compared by [B, N, D], themselves if left out.
        backend: as for `match_pairs`.

    Returns:
        merged [B, N - r, C], labels [B, N] as from `match_pairs`, and sizes [B, N - r].

    Raises:
        ValueError: shapes or settings don't fit.
    """
    metric = x if metric is None else metric
    _check(metric, r, num_prefix_tokens)
    if metric.shape[:2] != x.shape[:2] or (sizes is not None and sizes.shape != x.shape[:2]):
        given = f'metric {tuple(metric.shape)} and sizes {None if sizes is None else tuple(sizes.shape)}'
        raise ValueError(f'{given} do not fit tokens {tuple(x.shape)}: [B, N, D] and [B, N] are needed')
    if _in_kernels(backend, r, metric, x, sizes):
        from .triton import matching as kernels

        return kernels.merge_pairs(x, r, num_prefix_tokens, sizes, metric)
    return _merge(x, r, num_prefix_tokens, sizes, metric)


@in_float32
def _merge(
    x: Tensor, r: int, num_prefix_tokens: int, sizes: Tensor | None, metric: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    labels = _match(metric, r, num_prefix_tokens)
    sizes = x.new_ones(x.shape[:2]) if sizes is None else sizes
    merged, sums = mean_by_label(x, labels, sizes, x.shape[1] - r)
    return merged, labels, sums
