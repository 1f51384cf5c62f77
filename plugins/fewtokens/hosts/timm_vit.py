"""timm's VisionTransformer: DINOv2, SigLIP, CLIP, DeiT, MAE and many others."""

from collections.abc import Callable, Collection
from typing import Any, Optional

from torch import nn

from ..ops.grid import pair
from .attention import AttentionContext
from .base import Host, asked_blocks, class_names, register_host
from .layout import Grid
from .middle import Middle
from .spread import Sublayers, sublayers


@register_host
class TimmViT(Host):
    family = 'timm VisionTransformer'
    ways = ('forward_features', 'forward_intermediates')

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmViT']:
        if 'timm.models.vision_transformer.VisionTransformer' not in class_names(module):
            return None
        return cls(**describe(path, module))

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        image = args[0] if args else kwargs['x']
        return pair(map(int, self.entry.dynamic_feat_size(image.shape[-2:])))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        if way == 'forward_features':
            return ()
        from timm.models._features import feature_take_indices

        return asked_blocks(feature_take_indices, len(self.blocks), args, kwargs)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        if args or kwargs.get('attn_mask') is not None or kwargs.get('is_causal'):
            raise ValueError('attn_mask and is_causal are for all tokens, and there are fewer: leave them out')
        mask = context.key_mask(value)
        return forward(value, **kwargs) if mask is None else forward(value, **{**kwargs, 'attn_mask': mask})

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        if not {'timm.models.vision_transformer.Block', 'timm.models.eva.EvaBlock'} & class_names(block):
            return None
        return mlp_sublayers(block)

    def middle(self, block: nn.Module) -> Middle | None:
        if 'timm.models.vision_transformer.Block' not in class_names(block):
            return None
        return Middle(block.norm1, block.attn, 'qkv.weight', 'qkv.bias', block.norm2, block.mlp)


def mlp_sublayers(block: nn.Module) -> Sublayers | None:
    """Of a pre-norm block of timm's, whose MLP is often its plain one."""
    plain = 'timm.layers.mlp.Mlp' in class_names(block.mlp)
    return sublayers(block.norm1, block.norm2, *((block.mlp.fc1, block.mlp.act) if plain else (None, None)))


def describe(path: str, module: nn.Module) -> dict[str, Any]:
    """What timm's plain ViTs have in common."""
    embed = module.patch_embed
    return dict(
        path=path,
        backbone=module,
        entry=embed,
        blocks=list(module.blocks),
        taps=None,
        nominal_grid=tuple(embed.grid_size),
        norm=module.norm,
        num_prefix_tokens=module.num_prefix_tokens,
        image_size=tuple(embed.img_size) if embed.strict_img_size else None,
    )
