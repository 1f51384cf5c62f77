"""Hugging Face's SAM 2 image encoder, a Hiera: reduced within windows until the end of a stage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Optional

from torch import Tensor, nn

from .base import register_host
from .hiera_stages import HieraStages
from .layout import Grid
from .sam_blocks import ReducedAttention
from .transformers_vit import Parts, TransformersViT, find_model

HIERA = Parts(
    'patch_embed', 'blocks', None, 0, ('layer_norm1', 'layer_norm2'), ('mlp.proj_in', 'mlp.activation'), mask=None
)  # fmt: skip
MODELS = {'sam2.modeling_sam2.Sam2HieraDetModel': HIERA}


class Attention(ReducedAttention):
    """Stands in for the call of a block's attention."""

    def __call__(self, module: nn.Module, previous: Callable, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        context = self.context()
        if context is None:
            return previous(hidden_states=hidden_states, **kwargs)
        return self.reduced(module, hidden_states, context)

    def heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        return module.qkv(x).unflatten(2, (3, module.num_attention_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        return module.proj(x)


@register_host
@dataclass(frozen=True)
class TransformersSAM2(HieraStages, TransformersViT):
    family = 'transformers SAM 2'
    attention = Attention

    ends: tuple[int, ...] = ()
    windows: tuple[Grid, ...] = ()

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersSAM2']:
        found = find_model(cls, MODELS, path, module)
        if found is None:
            return None
        windows = tuple((side, side) for side in module.config.window_size_per_stage)
        ends = tuple(accumulate(module.config.blocks_per_stage))
        return replace(found, nominal_grid=max(windows), ends=ends, windows=windows)

    def stride(self, block: nn.Module) -> Grid | None:
        return block.query_stride and tuple(block.query_stride)
