"""timm's HieraDet, SAM 2's image encoder: reduced within windows until the end of a stage."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor, nn

from .base import Host, asked_blocks, class_names, register_host
from .hiera_stages import HieraStages
from .layout import Grid
from .sam_blocks import ReducedAttention
from .spread import Sublayers
from .timm_vit import mlp_sublayers


class Attention(ReducedAttention):
    """Stands in for the call of a block's attention."""

    def __call__(self, module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
        context = self.context()
        return previous(x) if context is None else self.reduced(module, x, context)

    def heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        return module.qkv(x).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        return module.proj(x)


@register_host
@dataclass(frozen=True)
class TimmHieraDet(HieraStages, Host):
    family = 'timm HieraDet'
    attention = Attention
    ways = ('forward_features', 'forward_intermediates')

    ends: tuple[int, ...] = ()
    windows: tuple[Grid, ...] = ()

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmHieraDet']:
        if 'timm.models.hieradet_sam2.HieraDet' not in class_names(module):
            return None
        blocks = list(module.blocks)
        # Blocks may have been cut off behind the last that is asked for.
        ends = tuple(min(end + 1, len(blocks)) for end in module.stage_ends if end < len(blocks))
        ends = ends if ends and ends[-1] == len(blocks) else (*ends, len(blocks))
        windows = tuple((side, side) for side in module.window_spec)
        return cls(
            path=path,
            backbone=module,
            entry=module.patch_embed,
            blocks=blocks,
            taps=None,
            nominal_grid=max(windows),
            ends=ends,
            windows=windows,
        )

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        coarse = args[6] if len(args) > 6 else kwargs.get('coarse', True)
        if way == 'forward_features' or coarse:
            return ()  # Tokens are whole at the ends of stages.
        from timm.models._features import feature_take_indices

        return asked_blocks(feature_take_indices, len(self.blocks), args, kwargs)

    def stride(self, block: nn.Module) -> Grid | None:
        return block.q_stride

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mlp_sublayers(block)
