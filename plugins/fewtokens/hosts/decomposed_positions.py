"""Attention with relative positions in two parts, up and down and across: SAM's and ViTDet's."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.backend import is_plain_call
from ..ops.tables import kept
from .attention import biased_attention, key_mask
from .layout import Grid

PART = 2**18
"""Logits that are worked on at a time on a CPU: what is added to them fits its second-level cache."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: Grid,
    tables: tuple[Tensor, Tensor] | None,
    key_bias: Tensor | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """Attention of the tokens of a grid, [B, heads, H*W, D].

    Args:
        query: [B, heads, H*W, D], as are `key` and `value`.
        grid: (H, W) of the tokens.
        tables: of relative positions up and down [L, D], and across, resized to the grid; None for no positions.
        key_bias: added to the logits of each token as a key, [B, H*W].
        dropout: of the weights.
        scale: of the logits.
    """
    if tables is None:
        bias = None if key_bias is None else key_mask(key_bias)
        return biased_attention(query, key, value, bias, dropout, scale)
    # With a query [B, heads, H, W, D]: what it adds to the logits of each row of keys, and of each column.
    of_grid = query.unflatten(2, grid)
    rows = torch.einsum('bnhwc,hkc->bnhwk', of_grid, _by_pair(tables[0], grid[0]))
    columns = torch.einsum('bnhwc,wkc->bnhwk', of_grid, _by_pair(tables[1], grid[1]))
    given = [query, key, value, rows, columns]
    if query.device.type == 'cpu' and not torch.is_grad_enabled() and is_plain_call(given):
        return _attend_in_parts(query, key, value, rows, columns, key_bias, dropout, scale)
    bias = (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3)
    if key_bias is not None:
        bias = bias + key_mask(key_bias)
    return biased_attention(query, key, value, bias, dropout, scale)


def _attend_in_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    key_bias: Tensor | None,
    dropout: float,
    scale: float,
) -> Tensor:
    """The same a few samples or rows of queries at a time: no tensor of queries by keys goes through memory."""
    heads, (height, width) = query.shape[1], rows.shape[2:4]
    if key_bias is not None:
        key_bias = key_bias.repeat_interleave(heads, 0).view(-1, 1, 1, height, width)
    query, key, value, rows, columns = (each.flatten(0, 1) for each in (query, key, value, rows, columns))
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for samples, some in _parts(len(query), height, width):
        bias = rows[samples, some, :, :, None] + columns[samples, some, :, None]
        if key_bias is not None:
            bias += key_bias[samples]
        bias = bias.flatten(3).flatten(1, 2)
        queries = slice(some.start * width, some.stop * width)
        q, k, v, bias = (each[:, None] for each in (query[samples, queries], key[samples], value[samples], bias))
        out[samples, queries] = biased_attention(q, k, v, bias, dropout, scale)[:, 0]
    return out.unflatten(0, (-1, heads))


def _parts(samples: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Samples, and rows of their queries, with about `PART` logits."""
    step = max(1, PART // (height * width) ** 2)
    rows = max(1, min(height, PART // (height * width * width)))
    for first in range(0, samples, step):
        for top in range(0, height, rows):
            yield slice(first, first + step), slice(top, min(top + rows, height))


def _by_pair(table: Tensor, side: int) -> Tensor:
    """Entries of a table of relative positions for each pair of places on a side, query first, [side, side, D].

    A table of another size is interpolated to the side's, as hosts do.
    """
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode='linear')[0].T
    return table[_pairs(side, device=table.device)]


@kept
def _pairs(side: int) -> Tensor:
    place = torch.arange(side)
    return place[:, None] - place + side - 1
