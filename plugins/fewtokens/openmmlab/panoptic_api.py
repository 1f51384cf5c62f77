"""Stands in for panopticapi, which mmdet needs for panoptic data and which is not on PyPI."""

import importlib.util
import sys
import types
from collections import defaultdict
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np


def provide_panoptic_api() -> bool:
    """Makes the four names importable that mmdet takes from panopticapi; says whether the stand-in is what is used.

    With them mmdet's LoadPanopticAnnotations and CocoPanopticMetric work. An installed panopticapi is left alone.
    """
    if 'panopticapi' in sys.modules:
        return getattr(sys.modules['panopticapi'], 'is_fewtokens_stand_in', False)
    if importlib.util.find_spec('panopticapi') is not None:
        return False
    package = _module('panopticapi', __path__=[], is_fewtokens_stand_in=True)
    vars(package).update(
        utils=_module('panopticapi.utils', rgb2id=rgb_to_ids, id2rgb=ids_to_rgb),
        evaluation=_module('panopticapi.evaluation', PQStat=PanopticCounts, VOID=0, OFFSET=2**24),
    )
    return True


def _module(name: str, **names: Any) -> types.ModuleType:
    module = types.ModuleType(name, provide_panoptic_api.__doc__)
    module.__spec__ = ModuleSpec(name, loader=None)
    vars(module).update(names)
    sys.modules[name] = module
    return module


def rgb_to_ids(rgb: np.ndarray) -> np.ndarray:
    """Segment ids [H, W] of a panoptic picture [H, W, 3]: red + 256 green + 65536 blue."""
    return rgb.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """The panoptic picture [H, W, 3] uint8 of segment ids [H, W]."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


@dataclass
class CategoryCounts:
    """Of one category: matched pairs of segments and the sum of their IoU, and segments without a match."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: 'CategoryCounts') -> 'CategoryCounts':
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


class PanopticCounts:
    """Counts by category, which add up over images, and the qualities that follow from them.

    Kirillov et al., Panoptic Segmentation, CVPR 2019.
    """

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, CategoryCounts] = defaultdict(CategoryCounts)

    def __getitem__(self, category: int) -> CategoryCounts:
        return self.pq_per_cat[category]

    def __iadd__(self, other: 'PanopticCounts') -> 'PanopticCounts':
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(self, categories: dict[int, dict], isthing: bool | None) -> tuple[dict[str, Any], dict[int, dict]]:
        """Mean qualities over the categories that occur, and those of each; of things, of stuff, or of both (None)."""
        each, occurring = {}, []
        for category, described in categories.items():
            if isthing is not None and isthing != (described['isthing'] == 1):
                continue
            counts = self.pq_per_cat[category]
            segments = counts.tp + (counts.fp + counts.fn) / 2
            if segments:
                found = counts.tp / segments
                quality = dict(pq=counts.iou / segments, sq=counts.iou / max(counts.tp, 1), rq=found)
                occurring.append(quality)
            else:
                quality = dict(pq=0.0, sq=0.0, rq=0.0)
            each[category] = quality
        number = len(occurring)
        means = {name: sum(quality[name] for quality in occurring) / max(number, 1) for name in ('pq', 'sq', 'rq')}
        return dict(means, n=number), each
