"""Hugging Face's SAM 2 image encoder, a Hiera: reduced within windows until the end of a stage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Optional

from torch import Tensor, nn

from .base import register_host
from .layout import Grid, Layout, Windows
from .sam_blocks import ReducedAttention, SAMBlocks
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
class TransformersSAM2(SAMBlocks, TransformersViT):
    family = 'transformers SAM 2'
    attention = Attention

    ends: tuple[int, ...] = ()
    """For each stage, the number of blocks until its end."""

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersSAM2']:
        found = find_model(cls, MODELS, path, module)
        if found is None:
            return None
        window = max(module.config.window_size_per_stage)
        return replace(found, nominal_grid=(window, window), ends=tuple(accumulate(module.config.blocks_per_stage)))

    def region_end(self, index: int) -> int:
        if self.blocks[index].query_stride:
            raise ValueError(
                f'after={index}: block {index} of {type(self.backbone).__name__} pools the tokens of one stage to '
                f'those of the next, and they must be whole: after={index + 1} fits where the stage has more blocks, '
                f'and stages begin at blocks {", ".join(map(str, (0, *self.ends[:-1])))}'
            )
        return next(end for end in self.ends if index < end)

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        for block in self.blocks[:index]:
            grid = tuple(side // stride for side, stride in zip(grid, block.query_stride or (1, 1)))
        stage = next(stage for stage, end in enumerate(self.ends) if index < end)
        # A block that sees the whole image has no window of its own.
        window = self.backbone.config.window_size_per_stage[stage]
        return Windows(grid, (window, window))
