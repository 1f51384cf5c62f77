"""Attention within windows of a grid, shifted by half a window in every other block."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.grid import pair
from ..ops.tables import kept
from .attention import Context, biased_attention
from .base import Host
from .layout import Grid, Windows
from .relative_positions import table_bias

MASKED = -100
"""What hosts add to the logits of pairs that are not neighbours in the image."""


@dataclass(frozen=True)
class SwinHost(Host):
    """What Swins have in common: tokens are reduced within windows until the end of a stage."""

    defaults: ClassVar[dict[str, Any]] = dict(iters=3, k=25)
    relative_positions: ClassVar[bool] = True
    grid_is: ClassVar[str] = 'tokens in an attention window'

    ends: tuple[int, ...] = ()
    """For each stage, the number of blocks until its end."""

    def region_end(self, index: int) -> int:
        return next(end for end in self.ends if index < end)


def describe_stages(stages: Sequence[Sequence[nn.Module]]) -> dict[str, Any]:
    """The blocks of a Swin's stages, whose outputs are the only ones that its caller sees."""
    ends = tuple(sum(map(len, stages[: i + 1])) for i in range(len(stages)))
    return dict(blocks=[block for stage in stages for block in stage], taps=tuple(end - 1 for end in ends), ends=ends)


@dataclass(frozen=True)
class WindowWeights:
    """What attention within windows needs of a module. Made anew each time: optimizers and averages change them."""

    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    """Queries, keys and values [..., heads, D] of tokens [..., C]."""
    out: Callable[[Tensor], Tensor]
    """The projection after attention."""
    table: Tensor
    """Of relative positions, [(2H-1)*(2W-1), heads]."""
    window: Grid
    """(H, W), what the table is for."""
    scale: float = 1.0
    dropout: float = 0.0
    """Of attention, 0 outside training."""
    masked: int = MASKED


def attend(
    weights: WindowWeights, x: Tensor, layout: Windows, shifts: Sequence[int], key_bias: Tensor | None = None
) -> Tensor:
    """Attention of tokens [B, H*W, C] that are made whole windows first, and then shifted.

    Args:
        layout: of the tokens.
        shifts: by how many rows and columns.
        key_bias: added to the logits of each token as a key, [B, H*W].
    """
    windows = layout.cut(shift(layout.pad(x), shifts))
    keys = None if key_bias is None else layout.cut(shift(layout.pad(key_bias[..., None]), shifts))[..., 0]
    out = attend_in_windows(weights, windows, layout, shifts, keys)
    return layout.crop(shift(layout.uncut(out), shifts, back=True))


def attend_in_windows(
    weights: WindowWeights, windows: Tensor, layout: Windows, shifts: Sequence[int], keys: Tensor | None = None
) -> Tensor:
    """Attention within the windows of an image that was shifted before it was cut, [B, rows, columns, h*w, C].

    Windows of the last row and column need a mask after a shift. All others share one bias, so there are at most four
    kinds of windows, and no mask is as large as the image.

    Args:
        layout: of the tokens, before they were made whole windows.
        shifts: by how many rows and columns.
        keys: added to the logits of each token as a key, [B, rows, columns, h*w].
    """
    rows, columns = layout.counts
    parts = weights.project(windows)
    bias = table_bias(weights.table, weights.window, layout.grid)
    out = []
    for down, last_row in _groups(rows, shifts[0]):
        beside = []
        for across, last_column in _groups(columns, shifts[1]):
            mask = bias
            if last_row or last_column:
                last = _shift_mask(
                    layout.grid, tuple(shifts), last_row, last_column, weights.masked, device=bias.device
                )
                mask = mask + last.to(bias.dtype)
            if keys is not None:
                mask = mask + keys[:, down, across].flatten(0, 2)[:, None, None]
            query, key, value = (part[:, down, across].flatten(0, 2).transpose(1, 2) for part in parts)
            attended = biased_attention(query, key, value, mask, weights.dropout, weights.scale)
            attended = attended.transpose(1, 2).flatten(2)
            beside.append(attended.unflatten(0, parts[0][:, down, across].shape[:3]))
        out.append(_joined(beside, dim=2))
    return weights.out(_joined(out, dim=1))


def scaled_cosines(query: Tensor, key: Tensor, value: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., heads, D] whose products are Swin v2's scaled cosines.

    Args:
        logit_scale: the logarithm of the scale of each head, [heads, 1, 1].
    """
    scale = logit_scale.clamp(max=math.log(100.0)).exp()[:, 0]
    query, key = F.normalize(query, dim=-1) * scale, F.normalize(key, dim=-1)
    return query, key, value.to(query.dtype)


def continuous_table(mlp: Callable[[Tensor], Tensor], coordinates: Tensor) -> Tensor:
    """Swin v2's table of relative positions [(2H-1)*(2W-1), heads], that a small MLP makes of their coordinates."""
    return 16 * mlp(coordinates).flatten(0, -2).sigmoid()


def half_windows(layout: Windows, shifted: Sequence[int]) -> Grid:
    """By how many rows and columns the windows of a block are shifted that shifts where `shifted` isn't zero."""
    return pair(side // 2 if shifts else 0 for side, shifts in zip(layout.grid, shifted))


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
def _shift_mask(window: Grid, shifts: Grid, last_row: bool, last_column: bool, masked: int) -> Tensor:
    """[h*w, h*w]: the shift brought tokens from the image's other side into the last windows."""
    wrapped = [
        torch.arange(side) >= side - shift if last else torch.zeros(side, dtype=torch.bool)
        for side, shift, last in zip(window, shifts, (last_row, last_column))
    ]
    part = (2 * wrapped[0][:, None] + wrapped[1].int()).flatten()
    return torch.where(part[:, None] == part, 0.0, float(masked))


@dataclass
class ReducedMapAttention:
    """Stands in for what attends in a block over maps [B, H, W, C]: in windows of fewer tokens.

    Attributes:
        attend: a library's own, called with the module, its tokens, their layout and a bias on the logits of keys.
    """

    context: Context
    attend: Callable[[nn.Module, Tensor, Windows, Tensor | None], Tensor]

    def __call__(self, module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
        context = self.context()
        if context is None:
            return previous(x)
        return self.attend(module, x, context.windows, context.key_bias(x))
