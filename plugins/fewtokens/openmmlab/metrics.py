"""An evaluator's metrics in percent under their usual names, and what their intervals are drawn from."""

import re
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ..measure.resampling import Areas, Resampled, Segments

HEADLINES = ('mIoU', 'PQ', 'box AP', 'mask AP', 'R@1', 'v2t/R@1', 'delta1', 'RMSE')
"""Metrics that a comparison shows, in the order that the evaluator has them in; all but RMSE are in percent."""


OURS = {'CocoMetric': 'FastCocoMetric', 'CocoPanopticMetric': 'SafeCocoPanopticMetric'}


def use_our_metrics(evaluators: Any) -> Any:
    """A config's evaluator, or list of them, with the same of ours for mmdet's CocoMetric and CocoPanopticMetric."""
    if isinstance(evaluators, (list, tuple)):
        return [use_our_metrics(one) for one in evaluators]
    ours = OURS.get(str(evaluators['type']).removeprefix('mmdet.'))
    if ours is None:
        return evaluators
    from . import coco_metric  # noqa: F401  registers them

    return {**evaluators, 'type': ours}


def in_percent(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics as plain numbers, headlines first.

    mmdet's `coco/bbox_mAP_50` becomes `box AP50`, in percent, and `coco_panoptic/PQ` becomes `PQ`. AP of sizes that no
    object has, -1 to COCO, is left out.
    """
    found = {}
    for name, value in metrics.items():
        if not np.isscalar(value):
            continue
        average = re.fullmatch(r'(?:coco|youtube_vis)/(bbox|segm)_mAP_?(\w*)', name)
        if average is None:
            found[name.removeprefix('coco_panoptic/')] = float(value)
        elif value >= 0:
            found[dict(bbox='box', segm='mask')[average[1]] + f' AP{average[2]}'] = 100 * float(value)
    return {name: found[name] for name in sorted(found, key=lambda name: name not in HEADLINES)}


def collect_statistics(metric: BaseMetric) -> dict[str, Resampled]:
    """What a metric has gathered image by image, by the name of what it will compute; call it before that.

    mmseg's IoUMetric and mmdet's CocoPanopticMetric keep their results so. A metric of ours has its own `statistics`
    once it has computed them.
    """
    kinds = {cls.__name__ for cls in type(metric).__mro__}
    if 'IoUMetric' in kinds:
        return dict(mIoU=Areas(*(np.stack([np.asarray(row[i], np.float64) for row in metric.results]) for i in (0, 1))))
    if 'CocoPanopticMetric' in kinds and metric.tmp_dir is not None:
        categories = sorted(metric.categories or range(len(metric.dataset_meta['classes'])))
        counts = [[(c.iou, c.tp, c.fp, c.fn) for c in map(image.__getitem__, categories)] for image in metric.results]
        return dict(PQ=Segments(*np.moveaxis(np.array(counts, np.float64), -1, 0)))
    return {}
