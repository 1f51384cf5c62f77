"""The measures of monocular depth, as its literature takes them. Name this module in a config's `custom_imports`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from ..measure.files import write_whole
from ..measure.resampling import Means

Slices = tuple[slice, slice]

MEASURES = ('delta1', 'RMSE', 'AbsRel', 'delta2', 'delta3', 'SqRel', 'RMSE log', 'log10', 'silog')
"""What is computed, the headlines first."""
INTERVALS = ('delta1', 'RMSE', 'AbsRel')
SHARES = {
    'garg': ((0.40810811, 0.99189189), (0.03594771, 0.96405229)),
    'kitti-eigen': ((0.3324324, 0.91351351), (0.0359477, 0.96405229)),
}
"""Parts of a frame's height and width that are measured."""
NYU_SIZE, NYU_CROP = (480, 640), (slice(45, 471), slice(41, 601))
CROPS = (*SHARES, 'nyu-eigen')
ALIGNMENTS = ('median', 'inverse')
SMALLEST = 1e-8
"""Metres: an inverse depth that is nothing or less is that far from nothing."""


@METRICS.register_module()
class MonocularDepthMetric(BaseMetric):
    """Depth errors of each image, averaged over images.

    Pixels whose true depth lies between the bounds count. Predictions are clamped to the bounds, and one that is not a
    number to the lower, as in the benchmarks' code. `delta1` to `delta3` are in percent; `AbsRel`, `SqRel`, `RMSE log`
    and `log10` are plain numbers, `RMSE` is in metres, and `silog` is 100 times the standard deviation of the log's
    error.

    Args:
        min_depth, max_depth: bounds in metres: 1e-3 to 80 for KITTI, to 10 for NYUv2.
        crop: 'garg' or 'kitti-eigen', parts of a whole KITTI frame; 'nyu-eigen', of 480 x 640 pixels; None for all.
        align: None for predictions in metres; 'median' multiplies them by the ratio of medians, image by image;
            'inverse' takes them as inverse depths of unknown scale and shift, which are fitted to the truth's.
        output_dir: folder for predictions as PNGs of 16 bits.
        png_scale: what a metre is in those: 256 in KITTI, 1000 in NYUv2.
        collect_device, prefix: as for MMEngine's BaseMetric.
    """

    def __init__(
        self,
        min_depth: float = 1e-3,
        max_depth: float = 80.0,
        crop: str | None = None,
        align: str | None = None,
        output_dir: str | None = None,
        png_scale: float = 256.0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        if not 0 < min_depth < max_depth:
            raise ValueError(f'min_depth={min_depth} must be more than 0 and less than max_depth={max_depth}')
        for name, value, known in (('crop', crop, CROPS), ('align', align, ALIGNMENTS)):
            if value is not None and value not in known:
                raise ValueError(f'{name}={value!r} must be None or one of {", ".join(map(repr, known))}')
        self.bounds = min_depth, max_depth
        self.crop, self.align = crop, align
        self.output_dir, self.png_scale = output_dir and Path(output_dir), png_scale
        self.statistics: dict[str, Means] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            predicted, true = (
                sample[name]['data'].squeeze(0).float().cpu().numpy() for name in ('pred_depth_map', 'gt_depth_map')
            )
            self.results.append(self.measure(predicted, true, str(sample.get('img_path'))))
            if self.output_dir:
                self._write(self.output_dir, predicted, sample)

    def measure(self, predicted: np.ndarray, true: np.ndarray, name: str) -> np.ndarray:
        """`MEASURES` of one image, from maps [H, W] in metres.

        Raises:
            ValueError: the maps are of different sizes, the crop doesn't fit them, or nothing of the truth counts.
        """
        if predicted.shape != true.shape:
            sizes = ', its depth map '.join(f'{s[1]} x {s[0]}' for s in (predicted.shape, true.shape))
            raise ValueError(f'the prediction of {name!r} has {sizes} pixels: in tests, load the depth after KBCrop')
        counts = (true > self.bounds[0]) & (true < self.bounds[1])
        cropped = np.zeros_like(counts)
        cropped[crop_of(self.crop, true.shape)] = True
        counts &= cropped
        if not counts.any():
            raise ValueError(f'{name!r} has no true depth between {self.bounds[0]} and {self.bounds[1]} m in the crop')
        predicted, true = (each[counts].astype(np.float64) for each in (predicted, true))
        predicted = align(predicted, true, self.align)
        known = np.nan_to_num(predicted, nan=self.bounds[0], posinf=self.bounds[1], neginf=self.bounds[0])
        return depth_errors(known.clip(*self.bounds), true)

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        table = np.stack(results)
        self.statistics = {name: Means(table[:, MEASURES.index(name)]) for name in INTERVALS}
        return dict(zip(MEASURES, table.mean(axis=0).tolist()))

    def _write(self, folder: Path, predicted: np.ndarray, sample: dict) -> None:
        # Frames of different drives have the same names.
        name = sample.get('name') or Path(sample['img_path']).name
        path = folder / Path(str(name).replace('/', '_')).with_suffix('.png')
        pixels = np.nan_to_num(predicted * self.png_scale).round().clip(0, 65535).astype(np.uint16)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda temporary: temporary.write_bytes(cv2.imencode('.png', pixels)[1].tobytes()))


def crop_of(crop: str | None, size: tuple[int, int]) -> Slices:
    """Rows and columns of a map of that size that are measured."""
    if crop is None:
        return slice(None), slice(None)
    if crop == 'nyu-eigen':
        if tuple(size) != NYU_SIZE:
            raise ValueError(f"crop='nyu-eigen' is of maps of 640 x 480 pixels: there is one of {size[1]} x {size[0]}")
        return NYU_CROP
    rows, columns = (slice(*(int(share * side) for share in part)) for part, side in zip(SHARES[crop], size))
    return rows, columns


def align(predicted: np.ndarray, true: np.ndarray, how: str | None) -> np.ndarray:
    """Predictions in metres, of those whose scale, or whose inverse's scale and shift, isn't known."""
    if how is None:
        return predicted
    if how == 'median':
        return predicted * (np.median(true) / max(np.median(predicted), SMALLEST))
    columns = np.stack([predicted, np.ones_like(predicted)], axis=1)
    scale, shift = np.linalg.lstsq(columns, 1 / true, rcond=None)[0]
    return 1 / (scale * predicted + shift).clip(SMALLEST)


def depth_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """`MEASURES` of depths [N] in metres, all of them more than 0."""
    ratio = np.maximum(predicted / true, true / predicted)
    difference, of_logs = predicted - true, np.log(predicted) - np.log(true)
    found = {f'delta{power}': 100 * (ratio < 1.25**power).mean() for power in (1, 2, 3)}
    found |= {
        'AbsRel': (np.abs(difference) / true).mean(),
        'SqRel': (difference**2 / true).mean(),
        'RMSE': np.sqrt((difference**2).mean()),
        'RMSE log': np.sqrt((of_logs**2).mean()),
        'log10': np.abs(of_logs).mean() / np.log(10),
        'silog': 100 * of_logs.std(),
    }
    return np.array([found[name] for name in MEASURES])
