"""timm's Eva: EVA and EVA-02 with its CLIPs, DINOv3, Perception Encoder, and other ViTs with rotary positions."""

from collections.abc import Callable
from typing import Any, Optional

from torch import Tensor, nn

from .attention import AttentionContext
from .base import class_names, register_host
from .members import Members
from .timm_vit import TimmViT, describe


@register_host
class TimmEva(TimmViT):
    family = 'timm Eva'

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmEva']:
        if 'timm.models.eva.Eva' not in class_names(module):
            return None
        return cls(**describe(path, module))

    @property
    def rotary_positions(self) -> bool:
        return self.backbone.rope is not None

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        named = dict(zip(('rope', 'attn_mask', 'is_causal'), args)) | kwargs
        if named.get('rope') is not None:
            named['rope'] = context.groups.once(mean_positions, named['rope'])
        return super().call(index, forward, value, (), named, context)


def mean_positions(rope: Tensor, members: Members) -> Tensor:
    """Rotary positions of reduced tokens: sines and cosines are the means of their members'.

    They are not brought back to unit length: to a query, a key that is rotated by the mean is worth the mean of its
    members' logits. Where members lie far apart, fast frequencies then say little of where, which is true.

    Args:
        rope: of the tokens of an image, [N, 2D] or, where heads have their own, [heads, N, 2D].

    Returns:
        [B, 1 or heads, M, 2D].
    """
    by_head = rope if rope.ndim == 3 else rope[None]
    means = members.mean(by_head.transpose(0, 1).flatten(1)[None])
    return means.unflatten(2, (len(by_head), -1)).transpose(1, 2)
