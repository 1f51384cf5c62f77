"""mmdet's and mmseg's SwinTransformer: attention within windows, reduced within windows until the end of a stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from ..ops.relative_positions import relative_offsets
from ..ops.tables import kept
from .attention import AttentionContext, Context, biased_attention
from .base import Handle, Host, class_names, register_host
from .layout import Grid, Layout, Windows
from .mmseg_vit import mmcv_sublayers
from .relative_positions import resize_table
from .replaced import ReplacedCall
from .spread import Sublayers

_MODULES = ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin')
BACKBONES = {f'{module}.SwinTransformer' for module in _MODULES}
ATTENTIONS = {f'{module}.ShiftWindowMSA' for module in _MODULES}
MASKED = -100.0
"""What the host adds to the logits of pairs that are not neighbours in the image."""


@register_host
@dataclass(frozen=True)
class Swin(Host):
    family: ClassVar[str] = 'mmdet and mmseg SwinTransformer'
    defaults: ClassVar[dict[str, Any]] = dict(iters=3, k=25)
    relative_positions: ClassVar[bool] = True
    grid_is: ClassVar[str] = 'tokens in an attention window'

    ends: tuple[int, ...] = ()
    """For each stage, the number of blocks until its end."""

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['Swin']:
        if not BACKBONES & class_names(module):
            return None
        stages = [list(stage.blocks) for stage in module.stages]
        ends = tuple(sum(map(len, stages[: i + 1])) for i in range(len(stages)))
        window = stages[0][0].attn.window_size
        return cls(
            path=path,
            backbone=module,
            entry=module.patch_embed,
            blocks=sum(stages, []),
            taps=tuple(end - 1 for end in ends),
            nominal_grid=(window, window),
            ends=ends,
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        known = ATTENTIONS & class_names(module)
        return [ReplacedCall(module, fused_attention, innermost=True)] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return tuple(map(int, output[1]))

    def region_end(self, index: int) -> int:
        return next(end for end in self.ends if index < end)

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        return Windows(tuple(map(int, args[0])), self.nominal_grid)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        return forward(value, context.layout.extent, *args[1:], **kwargs)

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mmcv_sublayers(block)

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.attn, ReducedAttention(context))]


@dataclass
class ReducedAttention:
    """Attention within windows of fewer tokens, with a shift, a mask and positions that fit them."""

    context: Context

    def __call__(self, module: nn.Module, previous: Any, query: Tensor, hw_shape: Grid) -> Tensor:
        context = self.context()
        if context is None:
            return previous(query, hw_shape)
        # Made anew each time: optimizers and averages change the live table.
        table = resize_table(module.w_msa.relative_position_bias_table, module.w_msa.window_size, context.layout.grid)
        return attend(module, query, hw_shape, context.layout.grid, table, context.key_bias(query))


def fused_attention(module: nn.Module, previous: Any, query: Tensor, hw_shape: Grid) -> Tensor:
    """The host's attention as it is, by PyTorch's fused kernel."""
    return attend(module, query, hw_shape, module.w_msa.window_size, module.w_msa.relative_position_bias_table)


def attend(
    module: nn.Module, x: Tensor, size: Grid, window: Grid, table: Tensor, key_bias: Tensor | None = None
) -> Tensor:
    """Attention within windows, shifted by half a window where the module shifts.

    Windows of the last row and column need a mask after a shift. All others share one bias, so there are at most four
    kinds of windows, and no mask is as large as the image.

    Args:
        module: a ShiftWindowMSA, for its weights.
        x: tokens [B, H*W, C].
        size: (H, W).
        window: (h, w).
        table: relative positions, [(2h-1)*(2w-1), heads].
        key_bias: added to the logits of each token as a key, [B, H*W].
    """
    msa = module.w_msa
    layout, shifts = Windows(size, window), tuple(side // 2 if module.shift_size else 0 for side in window)
    rows, columns = layout.counts
    qkv = layout.cut(msa.qkv(_shift(layout.pad(x), shifts))).unflatten(-1, (3, msa.num_heads, -1))
    keys = None if key_bias is None else layout.cut(_shift(layout.pad(key_bias[..., None]), shifts))[..., 0]
    area = window[0] * window[1]
    bias = table[relative_offsets(window, device=table.device).flatten()].view(area, area, -1).permute(2, 0, 1)
    dropout = msa.attn_drop.p if msa.training else 0.0
    out = []
    for down, last_row in _groups(rows, shifts[0]):
        beside = []
        for across, last_column in _groups(columns, shifts[1]):
            mask = bias[None]
            if last_row or last_column:
                mask = mask + _shift_mask(window, shifts, last_row, last_column, device=bias.device).to(bias.dtype)
            if keys is not None:
                mask = mask + keys[:, down, across].flatten(0, 2)[:, None, None]
            part = qkv[:, down, across]
            query, key, value = part.flatten(0, 2).permute(2, 0, 3, 1, 4)
            attended = biased_attention(query, key, value, mask, dropout, msa.scale)
            beside.append(attended.transpose(1, 2).unflatten(0, part.shape[:3]))
        out.append(_joined(beside, dim=2))
    out = _shift(layout.uncut(msa.proj_drop(msa.proj(_joined(out, dim=1).flatten(-2)))), [-shift for shift in shifts])
    return module.drop(layout.crop(out))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


def _shift(image: Tensor, shifts: Sequence[int]) -> Tensor:
    return image.roll([-shift for shift in shifts], (1, 2)) if any(shifts) else image


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
