"""torchvision's SwinTransformer v1 and v2: tokens [B, H, W, C], reduced within windows until the end of a stage."""

from collections.abc import Callable, Collection
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
    attend,
    continuous_table,
    describe_stages,
    half_windows,
    scaled_cosines,
)
from .spread import Sublayers, sublayers

SWIN = 'torchvision.models.swin_transformer'
ATTENTION = f'{SWIN}.ShiftedWindowAttention'


@register_host
class TorchvisionSwin(SwinHost):
    family = 'torchvision SwinTransformer v1 and v2'
    ways = ('forward',)

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TorchvisionSwin']:
        if f'{SWIN}.SwinTransformer' not in class_names(module):
            return None
        # Between stages stand what merges patches.
        stages = [list(part) for part in list(module.features)[1::2]]
        return cls(
            path=path,
            backbone=module,
            entry=module.features[0],
            nominal_grid=tuple(stages[0][0].attn.window_size),
            # Its caller sees classes; the tokens they come from are the last block's.
            **describe_stages(stages) | dict(taps=None),
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        known = ATTENTION in class_names(module)
        return [ReplacedCall(module, fused_attention, innermost=True)] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[1:3]))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        return ()

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        for end in self.ends[:-1]:
            if index >= end:
                grid = pair((side + 1) // 2 for side in grid)
        return Windows(grid, self.nominal_grid)

    def tokens(self, value: Any) -> Tensor:
        return value.flatten(1, 2)

    def with_tokens(self, value: Any, tokens: Tensor, layout: Layout) -> Any:
        return tokens.unflatten(1, layout.extent)

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        if f'{SWIN}.SwinTransformerBlockV2' in class_names(block):
            return None
        return sublayers(block.norm1, block.norm2, block.mlp[0], block.mlp[1])

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.attn, ReducedMapAttention(context, attend_in_image))]


def fused_attention(module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
    """The host's attention as it is, by PyTorch's fused kernel."""
    return attend_in_image(module, x, Windows(tuple(x.shape[1:3]), tuple(module.window_size)))


def attend_in_image(module: nn.Module, x: Tensor, layout: Windows, key_bias: Tensor | None = None) -> Tensor:
    """Attention within windows of tokens [B, H, W, C], with a bias on the logits of keys [B, H*W]."""
    # One window alone is not shifted.
    shifts = (shift if count > 1 else 0 for shift, count in zip(half_windows(layout, module.shift_size), layout.counts))
    out = attend(weights_of(module), x.flatten(1, 2), layout, tuple(shifts), key_bias)
    return out.unflatten(1, layout.extent)


def weights_of(module: nn.Module) -> WindowWeights:
    """Of a ShiftedWindowAttention of Swin v1 or v2."""
    cosine = hasattr(module, 'logit_scale')

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bias = module.qkv.bias
        if cosine and bias is not None:
            query, _, value = bias.chunk(3)
            bias = torch.cat([query, torch.zeros_like(query), value])
        query, key, value = F.linear(x, module.qkv.weight, bias).unflatten(-1, (3, module.num_heads, -1)).unbind(-3)
        return scaled_cosines(query, key, value, module.logit_scale) if cosine else (query, key, value)

    return WindowWeights(
        project=project,
        out=lambda x: F.dropout(module.proj(x), module.dropout, module.training),
        table=continuous_table(module.cpb_mlp, module.relative_coords_table)
        if cosine
        else module.relative_position_bias_table,
        window=tuple(module.window_size),
        scale=1.0 if cosine else (module.qkv.in_features // module.num_heads) ** -0.5,
        dropout=module.attention_dropout if module.training else 0.0,
    )
