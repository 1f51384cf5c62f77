"""mmseg's VisionTransformer."""

from typing import Any, Optional

from torch import nn

from ..ops.grid import pair
from .attention import Context, KeyBias, without_weights
from .base import Handle, Head, Host, class_names, register_host
from .layout import Grid
from .middle import Middle
from .replaced import ReplacedCall
from .spread import Sublayers, sublayers


@register_host
class MMSegViT(Host):
    family = 'mmseg VisionTransformer'

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['MMSegViT']:
        if 'mmseg.models.backbones.vit.VisionTransformer' not in class_names(module):
            return None
        return cls(num_prefix_tokens=int(module.with_cls_token), **describe(path, module, parent))

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        # mmcv throws the weights away that it asks for.
        known = 'mmcv.cnn.bricks.transformer.MultiheadAttention' in class_names(module)
        return [ReplacedCall(module.attn, without_weights, innermost=True)] if known else []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output[1]))

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mmcv_sublayers(block)

    def middle(self, block: nn.Module) -> Middle | None:
        attention = block.attn.attn
        return Middle(block.norm1, attention, 'in_proj_weight', 'in_proj_bias', block.norm2, block.ffn.layers)

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.attn.attn, KeyBias(context))]


def mmcv_sublayers(block: nn.Module) -> Sublayers | None:
    """Of a block whose MLP is mmcv's FFN."""
    first = block.ffn.layers[0]
    plain = isinstance(first, nn.Sequential) and len(first) > 1
    return sublayers(block.norm1, block.norm2, *((first[0], first[1]) if plain else (None, None)))


def describe(path: str, module: nn.Module, parent: nn.Module | None) -> dict[str, Any]:
    """What mmseg's plain ViTs have in common."""
    patch = module.patch_size
    return dict(
        path=path,
        backbone=module,
        entry=module.patch_embed,
        blocks=list(module.layers),
        taps=tuple(sorted(i for i in module.out_indices if 0 <= i < len(module.layers))),
        norm=module.norm1 if module.final_norm else None,
        nominal_grid=(module.img_size[0] // patch, module.img_size[1] // patch),
        head=find_head(module, parent),
    )


def find_head(module: nn.Module, parent: nn.Module | None) -> Head | None:
    """Segmenter's head, where it gets nothing but the last block's tokens, straight from the backbone."""
    head: Any = getattr(parent, 'decode_head', None)
    backbone: Any = getattr(parent, 'backbone', None)
    if head is None or backbone is not module or getattr(parent, 'with_neck', False):
        return None
    if 'mmseg.models.decode_heads.segmenter_mask_head.SegmenterMaskTransformerHead' not in class_names(head):
        return None
    last = len(module.layers) - 1
    indices = list(module.out_indices)
    if head.input_transform is not None or indices[head.in_index] != last:
        return None
    return Head('decode_head', head, entry=head.dec_proj, exit=head.mask_norm)
