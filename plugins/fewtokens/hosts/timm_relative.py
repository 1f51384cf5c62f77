"""timm's Beit (BEiT and BEiT-2) and VisionTransformerRelPos: relative positions, each block's own or shared by all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import AttentionContext, Context, key_mask
from .base import Handle, class_names, register_host
from .relative_positions import table_bias
from .replaced import ReplacedCall
from .spread import Sublayers
from .timm_vit import TimmViT, describe, mlp_sublayers

PRE_NORM = {'timm.models.beit.Block', 'timm.models.vision_transformer_relpos.RelPosBlock'}


@register_host
class TimmBeit(TimmViT):
    family = 'timm Beit'
    relative_positions = True
    shared = ('rel_pos_bias', 'shared_rel_pos_bias')
    """The backbone's module of shared positions, and the blocks' argument that they come in."""

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmBeit']:
        if 'timm.models.beit.Beit' not in class_names(module):
            return None
        return cls(**describe(path, module))

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        module, argument = (getattr(self.backbone, self.shared[0]), self.shared[1])
        named = dict(zip((argument,), args)) | kwargs
        if named.get(argument) is not None:
            named[argument] = context.groups.once(lambda *_: reduced_bias(module, context), named[argument])
        return forward(value, **self.with_sizes(named, context.key_bias(value)))

    def with_sizes(self, named: dict[str, Any], bias: Tensor | None) -> dict[str, Any]:
        """A block's arguments with the bias of keys."""
        if bias is None:
            return named
        # What is shared is added to the logits beside the block's own.
        shared, mask = named.get(self.shared[1]), key_mask(bias)
        return named | {self.shared[1]: mask if shared is None else shared + mask}

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        if block.attn.relative_position_bias_table is None:
            return []
        return [ReplacedCall(block.attn, ReducedBias(context), name='_get_rel_pos_bias')]

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mlp_sublayers(block) if PRE_NORM & class_names(block) else None


@register_host
class TimmRelPos(TimmBeit):
    family = 'timm VisionTransformerRelPos'
    shared = ('shared_rel_pos', 'shared_rel_pos')

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmRelPos']:
        if 'timm.models.vision_transformer_relpos.VisionTransformerRelPos' not in class_names(module):
            return None
        return cls(**describe(path, module))

    def with_sizes(self, named: dict[str, Any], bias: Tensor | None) -> dict[str, Any]:
        # A block looks either at its own positions or at what is shared.
        return super().with_sizes(named, bias) if named.get(self.shared[1]) is not None else named

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        if block.attn.rel_pos is None:
            return []
        return [ReplacedCall(block.attn.rel_pos, ReducedBias(context, with_sizes=True), name='get_bias')]


@dataclass
class ReducedBias:
    """Stands in for the method that gives a block's own positions: those of the nominal cluster grid."""

    context: Context
    with_sizes: bool = False

    def __call__(self, module: nn.Module, previous: Callable) -> Tensor:
        context = self.context()
        if context is None:
            return previous()
        bias = reduced_bias(module, context)
        sizes = context.key_bias(bias) if self.with_sizes else None
        return bias if sizes is None else bias + key_mask(sizes)


def reduced_bias(module: nn.Module, context: AttentionContext) -> Tensor:
    """What positions add to the logits of reduced tokens, [1, heads, N, N]; made of the live weights."""
    layout = context.layout
    return table_bias(position_table(module), module.window_size, layout.extent, layout.num_prefix_tokens > 0)


def position_table(module: nn.Module) -> Tensor:
    """A module's table of relative positions; of a RelPosMlp the one that its MLP makes, zero for the class token."""
    if 'timm.layers.pos_embed_rel.RelPosMlp' not in class_names(module):
        return module.relative_position_bias_table
    table = module.bias_act(module.mlp(module.rel_coords_log).flatten(0, 1))
    table = table if module.bias_gain is None else module.bias_gain * table
    return F.pad(table, (0, 0, 0, 3 * module.prefix_tokens))
