"""Hugging Face's SAM image encoder, alone, in SAM-HQ and in readers of documents: windowed and global blocks."""

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Optional

from torch import Tensor, nn

from .base import Handle, class_names, register_host
from .decomposed_positions import attend
from .replaced import ReplacedCall
from .sam_blocks import ReducedAttention, SAMBlocks, nominal_window
from .transformers_vit import Parts, TransformersViT, find_model

SAM = Parts(
    'patch_embed', 'layers', None, 0, ('layer_norm1', 'layer_norm2'), ('mlp.lin1', 'mlp.act'), mask=None
)  # fmt: skip
SAM_HQ = 'sam_hq.modeling_sam_hq.SamHQVisionEncoder'
MODELS = {
    'sam.modeling_sam.SamVisionEncoder': SAM,
    SAM_HQ: SAM,
    'got_ocr2.modeling_got_ocr2.GotOcr2VisionEncoder': SAM,
    'deepseek_ocr2.modeling_deepseek_ocr2.DeepseekOcr2SamVisionEncoder': SAM,
    'unlimited_ocr.modeling_unlimited_ocr.UnlimitedOcrSamVisionEncoder': SAM,
    'slanext.modeling_slanext.SLANeXtVisionEncoder': SAM,
    'pp_formulanet.modeling_pp_formulanet.PPFormulaNetVisionModel': SAM,
}
EAGER = {f'transformers.models.{re.sub("(Encoder|Model)$", "Attention", name)}' for name in MODELS}
"""The attention that other kinds are subclasses of."""


class Attention(ReducedAttention):
    """Stands in for the call of a block's attention, of whichever implementation."""

    def __call__(
        self, module: nn.Module, previous: Callable, hidden_states: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        context = self.context()
        if context is None:
            return previous(hidden_states=hidden_states, **kwargs)
        return self.reduced(module, hidden_states, context), None

    def heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _heads(module, x)

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        return module.proj(x)

    def dropout(self, module: nn.Module) -> float:
        return module.dropout


def _heads(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, heads, N, D] of tokens [B, N, C]."""
    return module.qkv(x).unflatten(2, (3, module.num_attention_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def fused_attention(
    module: nn.Module, previous: Callable, hidden_states: Tensor, output_attentions: bool | None = None
) -> tuple[Tensor, None]:
    """The host's attention as it is, by PyTorch's fused kernel."""
    tables = (module.rel_pos_h, module.rel_pos_w) if module.use_rel_pos else None
    dropout = module.dropout if module.training else 0.0
    grid = tuple(hidden_states.shape[1:3])
    out = attend(*_heads(module, hidden_states.flatten(1, 2)), grid, tables, None, dropout, module.scale)
    return module.proj(out.transpose(1, 2).flatten(2)).unflatten(1, grid), None


@register_host
class TransformersSAM(SAMBlocks, TransformersViT):
    family = 'transformers SAM'
    attention = Attention

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersSAM']:
        found = find_model(cls, MODELS, path, module)
        if found is None:
            return None
        return replace(found, nominal_grid=nominal_window(found.blocks) or found.nominal_grid)

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        fused = f'{type(module).__module__}.{type(module).__qualname__}' not in EAGER
        return [] if fused else [ReplacedCall(module, fused_attention, innermost=True)]

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        seen = super().seen(way, args, kwargs)
        if f'transformers.models.{SAM_HQ}' not in class_names(self.backbone):
            return seen
        # Its mask decoder is given what comes out of every block that sees the whole image.
        return {*seen, *(index for index, block in enumerate(self.blocks) if not block.window_size)}
