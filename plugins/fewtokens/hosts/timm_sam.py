"""timm's VisionTransformerSAM: reduced within windows, in which most blocks attend; the others see them all."""

from collections.abc import Callable
from typing import Optional

import torch
from torch import Tensor, nn

from .attention import AttentionContext
from .base import class_names, register_host
from .sam_blocks import ReducedAttention, SAMBlocks, means_in_windows, nominal_window, share_in_image
from .spread import Sublayers
from .timm_eva import mean_positions
from .timm_vit import TimmViT, mlp_sublayers


class TimmAttention(ReducedAttention):
    """Stands in for the call of a block's attention."""

    def __call__(self, module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
        context = self.context()
        return previous(x) if context is None else self.reduced(module, x, context)

    def heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = module.qkv(x).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return module.q_norm(query), module.k_norm(key), value

    def turn(self, module: nn.Module, context: AttentionContext, heads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if module.rope is None:
            return heads
        from timm.layers import apply_rot_embed_cat

        query, key, value = heads
        rotary = module.rope.get_embed()
        rotary = _rotary_in_image(rotary, context) if self.window is None else mean_positions(rotary, context.groups)
        return *(apply_rot_embed_cat(each, rotary).type_as(value) for each in (query, key)), value

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        return module.proj_drop(module.proj(x))

    def dropout(self, module: nn.Module) -> float:
        return module.attn_drop.p


def _rotary_in_image(rotary: Tensor, context: AttentionContext) -> Tensor:
    """Rotary positions [H*W, 2D] as those of an image's reduced tokens: means of their members' in the image."""
    layout, whole = context.layout, getattr(context.layout, 'unreduced', None)
    if whole is None:
        return mean_positions(rotary, context.groups)
    means, real = means_in_windows(whole.split(rotary[None])[1], context.groups), share_in_image(context)
    if real is not None:
        means = means / real.clamp_min(torch.finfo(real.dtype).tiny)
    return layout.join(None, means)[:, None]


@register_host
class TimmSAM(SAMBlocks, TimmViT):
    family = 'timm VisionTransformerSAM'
    attention = TimmAttention

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmSAM']:
        if 'timm.models.vision_transformer_sam.VisionTransformerSAM' not in class_names(module):
            return None
        embed, blocks = module.patch_embed, list(module.blocks)
        return cls(
            path=path,
            backbone=module,
            entry=embed,
            blocks=blocks,
            taps=None,
            nominal_grid=nominal_window(blocks) or tuple(embed.grid_size),
            image_size=tuple(embed.img_size) if embed.strict_img_size else None,
        )

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mlp_sublayers(block) if 'timm.models.vision_transformer_sam.Block' in class_names(block) else None
