"""Sums, means and look-ups by label: token n of sample b belongs to row labels[b, n] of M."""

import torch
from torch import Tensor


def sum_by_label(x: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """[B, N, C] -> [B, M, C]: the sum of each label's tokens, 0 where there are none."""
    total = x.new_zeros(x.shape[0] * n_labels, x.shape[2])
    return total.index_add(0, flat_rows(labels, n_labels).flatten(), x.flatten(0, 1)).unflatten(
        0, (x.shape[0], n_labels)
    )


def mean_by_label(
    x: Tensor, labels: Tensor, sizes: Tensor, n_labels: int, empty: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of each label's tokens weighted by sizes [B, N], and the sums of sizes [B, M].

    A label whose sizes add up to nothing takes its row of `empty` [B, M, C], or zeros.
    """
    merged = sum_by_label(sizes[..., None], labels, n_labels)
    means = sum_by_label(x * sizes[..., None], labels, n_labels) / merged.clamp_min(torch.finfo(merged.dtype).tiny)
    return means if empty is None else torch.where(merged > 0, means, empty), merged[..., 0]


def take_by_label(rows: Tensor, labels: Tensor) -> Tensor:
    """[B, M, C] and [B, N] -> [B, N, C]: each token takes its label's row."""
    # Rows are copied whole by it; an index is looked up for every number.
    taken = rows.flatten(0, 1).index_select(0, flat_rows(labels, rows.shape[1]).flatten())
    return taken.unflatten(0, labels.shape)


def flat_rows(index: Tensor, n_rows: int) -> Tensor:
    """Indices into each sample's M rows [B, ...] -> indices into all samples' rows, one after the other."""
    if index.shape[0] == 1 and not torch.jit.is_tracing():  # what is traced may get more samples later
        return index
    offset = torch.arange(index.shape[0], device=index.device) * n_rows
    return index + offset.view(-1, *[1] * (index.ndim - 1))
