"""torchvision's VisionTransformer, among others the SWAG models."""

from collections.abc import Callable, Collection
from typing import Any, Optional

from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.grid import pair
from .attention import Context, KeyBias, biased_attention, key_mask
from .base import Handle, Host, class_names, register_host
from .layout import Grid
from .replaced import ReplacedCall
from .spread import Sublayers, sublayers

VIT = 'torchvision.models.vision_transformer'


@register_host
class TorchvisionViT(Host):
    family = 'torchvision VisionTransformer'
    argument = 'input'
    ways = ('forward',)

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TorchvisionViT']:
        if f'{VIT}.VisionTransformer' not in class_names(module):
            return None
        side = module.image_size // module.patch_size
        return cls(
            path=path,
            backbone=module,
            entry=module.conv_proj,
            blocks=list(module.encoder.layers),
            taps=None,
            nominal_grid=(side, side),
            norm=module.encoder.ln,
            num_prefix_tokens=1,
            image_size=(module.image_size,) * 2,
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        if f'{VIT}.EncoderBlock' not in class_names(module):
            return []
        return [ReplacedCall(module.self_attention, fused_attention, innermost=True)]

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[-2:]))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        return ()

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return sublayers(block.ln_1, block.ln_2, block.mlp[0], block.mlp[1])

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.self_attention, KeyBias(context))]


def fused_attention(
    module: nn.MultiheadAttention,
    previous: Callable,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    need_weights: bool = True,
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Self-attention by PyTorch's fused kernel, which `nn.MultiheadAttention` takes in training alone.

    What it takes for inference is made for GPUs, and computes the whole attention matrix on a CPU.
    """
    if need_weights or attn_mask is not None or query is not key or key is not value:
        return previous(
            query,
            key,
            value,
            need_weights=need_weights,
            key_padding_mask=key_padding_mask,
            attn_mask=attn_mask,
            **kwargs,
        )
    qkv = F.linear(query, module.in_proj_weight, module.in_proj_bias).unflatten(-1, (3, module.num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    bias = None if key_padding_mask is None else key_mask(key_padding_mask)
    dropout = module.dropout if module.training else 0.0
    out = biased_attention(query, key, value, bias, dropout, module.head_dim**-0.5)
    return module.out_proj(out.transpose(1, 2).flatten(2)), None
