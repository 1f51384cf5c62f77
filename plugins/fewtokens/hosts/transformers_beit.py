"""Hugging Face's BEiT, alone and as ZoeDepth's backbone: relative positions, each block's own or shared by all."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from .attention import AttentionContext, Context, key_mask
from .base import Handle, class_names, register_host
from .replaced import ReplacedCall
from .transformers_vit import MASKED, VIT, TransformersViT, find_model

INSIDE = 'beit'
"""Where a backbone has its model. The backbone is the host: it alone knows which blocks' outputs are seen."""
BACKBONE = 'transformers.models.beit.modeling_beit.BeitBackbone'
MODELS = {
    'beit.modeling_beit.BeitModel': VIT,
    'beit.modeling_beit.BeitBackbone': replace(
        VIT, entry=f'{INSIDE}.{VIT.entry}', blocks=f'{INSIDE}.{VIT.blocks}', norm=f'{INSIDE}.{VIT.norm}'
    ),
}


@register_host
class TransformersBeit(TransformersViT):
    family = 'transformers BEiT'
    relative_positions: ClassVar[bool] = True

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersBeit']:
        if parent is not None and BACKBONE in class_names(parent):
            return None
        return find_model(cls, MODELS, path, module)

    @property
    def shared(self) -> nn.Module | None:
        """What gives the positions that all blocks share."""
        return getattr(self.backbone, INSIDE, self.backbone).shared_position_bias

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        # The last argument of the model's own call. Blocks are given what is shared by the same name.
        if len(args) > 3 or kwargs.get('attention_mask') is not None:
            raise ValueError(MASKED)
        return super().seen(way, args, kwargs)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        named = dict(zip(('attention_mask',), args)) | kwargs
        self._refuse_weights(named)
        mask, sizes = named.pop('attention_mask', None), context.key_bias(value)
        shared = self.shared
        if mask is not None and shared is not None:
            mask = context.groups.once(lambda *_: shared(context.layout.grid), mask)
        if sizes is not None:
            self._check_attention()
            mask = key_mask(sizes) if mask is None else mask + key_mask(sizes)
        return forward(value, attention_mask=mask, **named)

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        own = block.relative_position_bias
        return [] if own is None else [ReplacedCall(own, ReducedBias(context))]


@dataclass
class ReducedBias:
    """Stands in for the call that gives a block's own positions: it is asked for those of the nominal cluster grid."""

    context: Context

    def __call__(self, module: nn.Module, previous: Callable, window_size: Any, *args: Any, **kwargs: Any) -> Tensor:
        context = self.context()
        if context is None:
            return previous(window_size, *args, **kwargs)
        return previous(context.layout.grid)
