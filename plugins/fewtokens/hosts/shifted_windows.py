"""Attention within windows of a grid, shifted by half a window in every other block."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.tables import kept
from .attention import biased_attention
from .layout import Grid, Windows

MASKED = -100.0
"""What hosts add to the logits of pairs that are not neighbours in the image."""


def attend_in_windows(
    qkv: Tensor,
    layout: Windows,
    shifts: Grid,
    bias: Tensor,
    keys: Tensor | None = None,
    dropout: float = 0.0,
    scale: float = 1.0,
) -> Tensor:
    """Attention of an image of whole windows that is shifted already.

    Windows of the last row and column need a mask after a shift. All others share one bias, so there are at most four
    kinds of windows, and no mask is as large as the image.

    Args:
        qkv: [B, H, W, 3, heads, D].
        layout: of the tokens, before they were made whole windows.
        shifts: by how many rows and columns.
        bias: of pairs of tokens in a window, [1, heads, h*w, h*w].
        keys: added to the logits of each token as a key, [B, H, W, 1].

    Returns:
        [B, H, W, heads * D].
    """
    rows, columns = layout.counts
    qkv = layout.cut(qkv)
    keys = None if keys is None else layout.cut(keys)[..., 0]
    out = []
    for down, last_row in _groups(rows, shifts[0]):
        beside = []
        for across, last_column in _groups(columns, shifts[1]):
            mask = bias
            if last_row or last_column:
                mask = mask + _shift_mask(layout.grid, shifts, last_row, last_column, device=bias.device).to(bias.dtype)
            if keys is not None:
                mask = mask + keys[:, down, across].flatten(0, 2)[:, None, None]
            part = qkv[:, down, across]
            query, key, value = part.flatten(0, 2).permute(2, 0, 3, 1, 4)
            attended = biased_attention(query, key, value, mask, dropout, scale)
            beside.append(attended.transpose(1, 2).unflatten(0, part.shape[:3]))
        out.append(_joined(beside, dim=2))
    return layout.uncut(_joined(out, dim=1).flatten(-2))


def half_windows(layout: Windows, shifted: Sequence[int]) -> Grid:
    """By how many rows and columns the windows of a block are shifted that shifts where `shifted` isn't zero."""
    return tuple(side // 2 if shifts else 0 for side, shifts in zip(layout.grid, shifted))


def shift(image: Tensor, shifts: Sequence[int], back: bool = False) -> Tensor:
    """An image [B, H, W, ...] with its first rows and columns brought to its other side; or back."""
    return image.roll([side if back else -side for side in shifts], (1, 2)) if any(shifts) else image


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _groups(count: int, shift: int) -> list[tuple[slice, bool]]:
    """Windows of one direction: all alike, or, after a shift, the last one apart."""
    if not shift:
        return [(slice(None), False)]
    return [(slice(0, count - 1), False)] * (count > 1) + [(slice(count - 1, None), True)]


@kept
def _shift_mask(window: Grid, shifts: Grid, last_row: bool, last_column: bool) -> Tensor:
    """[h*w, h*w]: the shift brought tokens from the image's other side into the last windows."""
    wrapped = [
        torch.arange(side) >= side - shift if last else torch.zeros(side, dtype=torch.bool)
        for side, shift, last in zip(window, shifts, (last_row, last_column))
    ]
    part = (2 * wrapped[0][:, None] + wrapped[1].int()).flatten()
    return torch.where(part[:, None] == part, 0.0, MASKED)
