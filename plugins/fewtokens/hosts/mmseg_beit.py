"""mmseg's BEiT and MAE: a table of relative positions in every block."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionContext, Context, biased_attention, key_mask
from .base import Handle, class_names, register_host
from .layout import Grid
from .mmseg_vit import MMSegViT, describe
from .relative_positions import table_bias
from .replaced import ReplacedCall

ATTENTION = 'mmseg.models.backbones.beit.BEiTAttention'


@register_host
class MMSegBEiT(MMSegViT):
    family = 'mmseg BEiT and MAE'
    relative_positions = True

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['MMSegBEiT']:
        if 'mmseg.models.backbones.beit.BEiT' not in class_names(module):
            return None
        return cls(num_prefix_tokens=1, **describe(path, module, parent))

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        known = ATTENTION in class_names(module)
        return [ReplacedCall(module, fused_attention, innermost=True)] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        grid = super().grid(args, kwargs, output)
        if grid != self.nominal_grid:
            wanted, given = (f'{rows} x {columns}' for rows, columns in (self.nominal_grid, grid))
            raise ValueError(f'{self.family} takes images of {wanted} tokens, as it was built for; these have {given}')
        return grid

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.attn, ReducedAttention(context))]


@dataclass
class ReducedAttention:
    """BEiT's attention over reduced tokens, which stand on the nominal cluster grid."""

    context: Context

    def __call__(self, module: nn.Module, previous: Any, x: Tensor) -> Tensor:
        context = self.context()
        return previous(x) if context is None else attend(module, x, _reduced_bias(module, context))


def fused_attention(module: nn.Module, previous: Any, x: Tensor) -> Tensor:
    """BEiT's attention as it is, by PyTorch's fused kernel."""
    side = module.relative_position_index.shape[0]
    bias = module.relative_position_bias_table[module.relative_position_index.flatten()]
    return attend(module, x, bias.view(1, side, side, -1).permute(0, 3, 1, 2))


def attend(module: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """Attention of x [B, N, C] with a bias [B or 1, heads, N, N] on the logits."""
    if module.bias == 'qv_bias':
        bias_qkv = torch.cat([module.q_bias, torch.zeros_like(module.v_bias), module.v_bias])
        qkv = F.linear(x, module.qkv.weight, bias_qkv)
    else:
        qkv = module.qkv(x)
    query, key, value = qkv.unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    dropout = module.attn_drop.p if module.training else 0.0
    out = biased_attention(query, key, value, bias, dropout, module.scale)
    return module.proj_drop(module.proj(out.transpose(1, 2).flatten(2)))


def _reduced_bias(module: nn.Module, context: AttentionContext) -> Tensor:
    bias = table_bias(module.relative_position_bias_table, module.window_size, context.layout.extent, class_token=True)
    sizes = context.key_bias(bias)
    return bias if sizes is None else bias + key_mask(sizes)
