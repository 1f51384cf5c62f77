"""Hugging Face's SigLIP 2 of any aspect ratio (NaFlex), which is given patches; the others are SigLIPs."""

from dataclasses import replace
from typing import Any, Optional

from torch import nn

from .base import register_host
from .layout import Grid
from .transformers_vit import SIGLIP, TransformersViT, find_model

MODELS = {'siglip2.modeling_siglip2.Siglip2VisionModel': replace(SIGLIP, entry='embeddings')}


@register_host
class TransformersSiglip2(TransformersViT):
    family = 'transformers SigLIP 2 of any aspect ratio'

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersSiglip2']:
        return find_model(cls, MODELS, path, module)

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        named = dict(zip(('pixel_values', 'spatial_shapes'), args)) | kwargs
        shapes = sorted(set(map(tuple, named['spatial_shapes'].tolist())))
        (rows, columns), count = shapes[0], named['pixel_values'].shape[1]
        if len(shapes) > 1:
            raise ValueError(f'images of {_shown(shapes)} patches stand on different grids: one size a batch fits')
        if rows * columns != count:
            raise ValueError(
                f'{count} patches came of an image of {rows} x {columns}, the others as padding, which stands on no '
                f'grid: max_num_patches={rows * columns} fits'
            )
        return rows, columns


def _shown(shapes: list[tuple[int, int]]) -> str:
    return ' and '.join(f'{rows} x {columns}' for rows, columns in shapes)
