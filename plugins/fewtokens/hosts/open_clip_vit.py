"""open_clip's VisionTransformer, the visual tower of a CLIP."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from ..ops.grid import pair
from .attention import AttentionContext
from .base import Host, asked_blocks, class_names, register_host
from .layout import Grid, Layout
from .spread import Sublayers, sublayers


@register_host
@dataclass(frozen=True)
class OpenClipViT(Host):
    family: ClassVar[str] = 'open_clip VisionTransformer'
    argument: ClassVar[str] = 'q_x'
    ways: ClassVar[tuple[str, ...]] = ('forward', 'forward_intermediates')

    batch_first: bool = True
    """Whether blocks take tokens as [B, N, C], or as [N, B, C]."""

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['OpenClipViT']:
        if 'open_clip.transformer.VisionTransformer' not in class_names(module):
            return None
        # Where pooling comes before the norm, the norm sees no tokens of a grid.
        pools_first = module.attn_pool is not None or module.final_ln_after_pool
        return cls(
            path=path,
            backbone=module,
            entry=module.conv1,
            blocks=list(module.transformer.resblocks),
            taps=None,
            nominal_grid=tuple(module.grid_size),
            norm=None if pools_first else module.ln_post,
            num_prefix_tokens=1,
            image_size=tuple(module.image_size),
            batch_first=module.transformer.batch_first,
        )

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[-2:]))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        if way == 'forward':
            return ()
        from open_clip.transformer import feature_take_indices

        return asked_blocks(feature_take_indices, len(self.blocks), args, kwargs)

    def tokens(self, value: Tensor) -> Tensor:
        return value if self.batch_first else value.transpose(0, 1)

    def with_tokens(self, value: Tensor, tokens: Tensor, layout: Layout) -> Tensor:
        return tokens if self.batch_first else tokens.transpose(0, 1)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        mask = context.key_mask(value, self.blocks[index].attn.num_heads)
        return forward(value, **kwargs) if mask is None else forward(value, **{**kwargs, 'attn_mask': mask})

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        if 'open_clip.transformer.ResidualAttentionBlock' not in class_names(block):
            return None
        return sublayers(block.ln_1, block.ln_2, block.mlp.c_fc, block.mlp.gelu)
