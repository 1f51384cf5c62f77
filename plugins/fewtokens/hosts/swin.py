"""mmdet's and mmseg's SwinTransformer: attention within windows, reduced within windows until the end of a stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor, nn

from ..ops.grid import pair
from . import shifted_windows
from .attention import AttentionContext, Context
from .base import Handle, class_names, register_host
from .layout import Grid, Layout, Windows
from .mmseg_vit import mmcv_sublayers
from .replaced import ReplacedCall
from .shifted_windows import SwinHost, WindowWeights, describe_stages, half_windows
from .spread import Sublayers

_MODULES = ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin')
BACKBONES = {f'{module}.SwinTransformer' for module in _MODULES}
ATTENTIONS = {f'{module}.ShiftWindowMSA' for module in _MODULES}


@register_host
class Swin(SwinHost):
    family = 'mmdet and mmseg SwinTransformer'

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['Swin']:
        if not BACKBONES & class_names(module):
            return None
        stages = [list(stage.blocks) for stage in module.stages]
        window = stages[0][0].attn.window_size
        return cls(
            path=path,
            backbone=module,
            entry=module.patch_embed,
            nominal_grid=(window, window),
            **describe_stages(stages),
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        known = ATTENTIONS & class_names(module)
        return [ReplacedCall(module, fused_attention, innermost=True)] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output[1]))

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        return Windows(pair(map(int, args[0])), self.nominal_grid)

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
        return attend(module, query, context.windows, context.key_bias(query))


def fused_attention(module: nn.Module, previous: Any, query: Tensor, hw_shape: Grid) -> Tensor:
    """The host's attention as it is, by PyTorch's fused kernel."""
    return attend(module, query, Windows(pair(hw_shape), module.w_msa.window_size))


def attend(module: nn.Module, x: Tensor, layout: Windows, key_bias: Tensor | None = None) -> Tensor:
    """Attention within windows, shifted by half a window where the module shifts.

    Args:
        module: a ShiftWindowMSA, for its weights.
        x: tokens [B, H*W, C].
        layout: theirs.
        key_bias: added to the logits of each token as a key, [B, H*W].
    """
    shifts = half_windows(layout, [module.shift_size] * 2)
    return module.drop(shifted_windows.attend(weights_of(module.w_msa), x, layout, shifts, key_bias))


def weights_of(msa: nn.Module) -> WindowWeights:
    """Of a WindowMSA."""
    return WindowWeights(
        project=lambda x: msa.qkv(x).unflatten(-1, (3, msa.num_heads, -1)).unbind(-3),
        out=lambda x: msa.proj_drop(msa.proj(x)),
        table=msa.relative_position_bias_table,
        window=msa.window_size,
        scale=msa.scale,
        dropout=msa.attn_drop.p if msa.training else 0.0,
    )
