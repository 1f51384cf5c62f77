"""What a variant of a model makes of a batch: its predictions, and the clusters of the same forward pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..measure.variants import Variant


def predict(model: nn.Module, variant: Variant, batch: dict[str, Any]) -> list[Any]:
    """Data samples with predictions, at the size of the labels whatever the variant does to the input."""
    videos = len(batch['inputs']) > 1 and hasattr(batch['data_samples'][0], 'video_data_samples')
    if videos or len({image.shape for image in batch['inputs']}) > 1:
        # mmseg stacks images of one size only; mmdet takes one video at a time.
        singles = [dict(inputs=[i], data_samples=[s]) for i, s in zip(batch['inputs'], batch['data_samples'])]
        return [sample for single in singles for sample in predict(model, variant, single)]
    data = model.data_preprocessor(batch, False)
    data['inputs'] = variant.resize(data['inputs'])
    if variant.half:
        _halve_shapes(data['data_samples'], data['inputs'])
    return model(**data, mode='predict')


def _halve_shapes(samples: list[Any], inputs: Tensor) -> None:
    """Tells a detector of its input's size, by which it finds the way back to the image's."""
    for sample in samples:
        if 'batch_input_shape' in sample:
            halves = {name: tuple(-(-side // 2) for side in sample.get(name)) for name in ('img_shape', 'pad_shape')}
            scale = tuple(factor / 2 for factor in sample.scale_factor)
            sample.set_metainfo(dict(halves, scale_factor=scale, batch_input_shape=tuple(inputs.shape[-2:])))


@dataclass(frozen=True)
class Seen:
    """One image through one variant: the data sample with predictions, and cluster labels [h, w] of the token grid.

    There are no cluster labels where nothing was clustered, or where the image took several passes (sliding windows).
    Whether the reducer of the variant, if it has one, had fewer tokens in any of them is `reduced`.
    """

    sample: Any
    clusters: np.ndarray | None
    reduced: bool = False


@torch.no_grad()
def look(model: nn.Module, variant: Variant, batch: dict[str, Any]) -> list[Seen]:
    """What a variant makes of each image of a batch, its clusters taken from that very forward pass."""
    with variant.applied(model) as reduction:
        samples = predict(model, variant, batch)
        passes = 0 if reduction is None else reduction.passes
        clusters = reduction.cluster_map if passes == 1 else None
    return [
        Seen(sample, None if clusters is None else _without_padding(clusters[i].cpu().numpy(), sample), passes > 0)
        for i, sample in enumerate(samples)
    ]


def _without_padding(clusters: np.ndarray, sample: Any) -> np.ndarray:
    """Detectors fill images up to a size that suits them, on the right and below."""
    if 'batch_input_shape' not in sample:
        return clusters
    sides = zip(clusters.shape, sample.img_shape, sample.batch_input_shape)
    rows, columns = (-(-tokens * size // padded) for tokens, size, padded in sides)
    return clusters[:rows, :columns]
