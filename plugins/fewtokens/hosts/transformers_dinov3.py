"""Hugging Face's DINOv3 ViT, with rotary positions, alone and as EoMT."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from .attention import AttentionContext
from .base import register_host
from .members import Members
from .transformers_vit import Parts, TransformersViT, find_model

DINOV3 = Parts(
    'embeddings.patch_embeddings', 'model.layer', 'norm', 1, ('norm1', 'norm2'), ('mlp.up_proj', 'mlp.act_fn')
)
MODELS = {
    'dinov3_vit.modeling_dinov3_vit.DINOv3ViTModel': DINOV3,
    'dinov3_vit.modeling_dinov3_vit.DINOv3ViTBackbone': DINOV3,
    'eomt_dinov3.modeling_eomt_dinov3.EomtDinov3ForUniversalSegmentation': replace(
        DINOV3, blocks='layers', norm=None, queries=True
    ),
}


@register_host
class TransformersDINOv3(TransformersViT):
    family = 'transformers DINOv3 ViT'
    rotary_positions: ClassVar[bool] = True

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersDINOv3']:
        return find_model(cls, MODELS, path, module)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        named = dict(zip(('attention_mask', 'position_embeddings'), args)) | kwargs
        named['position_embeddings'] = context.groups.once(mean_positions, *named['position_embeddings'])
        return super().call(index, forward, value, (), named, context)


def mean_positions(cosines: Tensor, sines: Tensor, members: Members) -> tuple[Tensor, Tensor]:
    """Rotary positions of reduced tokens, each [N, D] -> [B, 1, M, D]: the means of their members'."""
    cosines, sines = (members.mean(each[None])[:, None] for each in (cosines, sines))
    return cosines, sines
