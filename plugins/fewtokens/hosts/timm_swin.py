"""timm's SwinTransformer v1 and v2: tokens [B, H, W, C], reduced within windows until the end of a stage."""

from collections.abc import Callable
from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.grid import pair
from .attention import Context
from .base import Handle, class_names, register_host
from .layout import Grid, Layout, Windows
from .replaced import ReplacedCall
from .shifted_windows import (
    ReducedMapAttention,
    SwinHost,
    WindowWeights,
    attend_in_windows,
    continuous_table,
    describe_stages,
    half_windows,
    scaled_cosines,
    shift,
)
from .spread import Sublayers
from .timm_vit import mlp_sublayers

V1, V2 = 'timm.models.swin_transformer.SwinTransformer', 'timm.models.swin_transformer_v2.SwinTransformerV2'
BLOCKS = {f'{V1}Block', f'{V2}Block'}
STAGES = {f'{V1}Stage', f'{V2}Stage'}


@register_host
class TimmSwin(SwinHost):
    family = 'timm SwinTransformer and SwinTransformerV2'
    defaults = dict(iters=3, k=25, temperature=100.0)

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmSwin']:
        stages = [stage for stage in _parts(module) if STAGES & class_names(stage)]
        if not stages:
            return None
        blocks = [list(stage.blocks) for stage in stages]
        embed = module.patch_embed
        return cls(
            path=path,
            backbone=module,
            entry=embed,
            nominal_grid=tuple(max(sides) for sides in zip(*(each[0].window_size for each in blocks))),
            image_size=tuple(embed.img_size) if embed.strict_img_size else None,
            **describe_stages(blocks),
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        known = BLOCKS & class_names(module)
        return [ReplacedCall(module, fused_attention, innermost=True, name='_attn')] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[1:3]))

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        for end in self.ends[:-1]:
            if index >= end:
                grid = pair((side + 1) // 2 for side in grid)
        return Windows(grid, self.blocks[index].window_size)

    def tokens(self, value: Any) -> Tensor:
        return value.flatten(1, 2)

    def with_tokens(self, value: Any, tokens: Tensor, layout: Layout) -> Any:
        return tokens.unflatten(1, layout.extent)

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mlp_sublayers(block) if f'{V1}Block' in class_names(block) else None

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block, ReducedMapAttention(context, attend), name='_attn')]


def _parts(module: nn.Module) -> list[nn.Module]:
    """Where a backbone's stages may stand: timm's extractors of features have taken them out of it."""
    if {V1, V2} & class_names(module):
        return list(module.layers)
    return list(module.children()) if hasattr(module, 'patch_embed') else []


def fused_attention(module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
    """The host's attention as it is, by PyTorch's fused kernel."""
    return attend(module, x, Windows(tuple(x.shape[1:3]), module.window_size))


def attend(block: nn.Module, x: Tensor, layout: Windows, key_bias: Tensor | None = None) -> Tensor:
    """Attention within windows, shifted by half a window where the block shifts.

    Args:
        block: for its weights.
        x: tokens [B, H, W, C].
        layout: theirs.
        key_bias: added to the logits of each token as a key, [B, H*W].
    """
    # The block's own shift may be another than half of its window; that of fewer tokens is half of theirs.
    shifts = half_windows(layout, block.shift_size) if layout.grid != block.window_size else block.shift_size
    # Shifted first, and then made whole windows, as the host does.
    windows = layout.cut(layout.pad(shift(x, shifts).flatten(1, 2)))
    keys = None
    if key_bias is not None:
        keys = layout.cut(layout.pad(shift(key_bias.unflatten(1, layout.extent)[..., None], shifts).flatten(1, 2)))
        keys = keys[..., 0]
    out = attend_in_windows(weights_of(block.attn), windows, layout, shifts, keys)
    return shift(layout.crop(layout.uncut(out)).unflatten(1, layout.extent), shifts, back=True)


def weights_of(attn: nn.Module) -> WindowWeights:
    """Of a WindowAttention of Swin v1 or v2."""
    first = hasattr(attn, 'relative_position_bias_table')
    return WindowWeights(
        project=partial(projected if first else projected_for_cosines, attn),
        out=lambda x: attn.proj_drop(attn.proj(x)),
        table=(
            attn.relative_position_bias_table if first else continuous_table(attn.cpb_mlp, attn.relative_coords_table)
        ),
        window=attn.window_size,
        scale=attn.scale if first else 1.0,
        dropout=attn.attn_drop.p if attn.training else 0.0,
    )


def projected(attn: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., heads, D] of Swin v1."""
    return attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)


def projected_for_cosines(attn: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `projected`, of Swin v2."""
    if attn.q_bias is None:
        qkv = attn.qkv(x)
    else:
        qkv = F.linear(x, attn.qkv.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))
    query, key, value = qkv.unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)
    return scaled_cosines(query, key, value, attn.logit_scale)
