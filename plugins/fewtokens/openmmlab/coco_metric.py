"""COCO's box and mask AP by a fast evaluator, over the images that were evaluated; PQ that leaves predictions alone."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ..measure.resampling import Detections

NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
AT_MOST = 100
"""Detections an image and class that COCO's AP looks at."""


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """mmdet's CocoMetric with faster-coco-eval in place of pycocotools, where that is installed.

    The results are pycocotools' to rounding. What differs from CocoMetric: values are not rounded to three digits;
    images of the annotation file that were not evaluated (a subset of the data set, unreadable files) don't count as
    missed; no detection at all is an AP of 0. Class-wise tables, proposals and formatted files are left to CocoMetric.

    Raises:
        ValueError: at the first image, if masks are to be evaluated and the model predicts none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._evaluations: dict[str, COCOeval] = {}

    @property
    def statistics(self) -> dict[str, Detections]:
        """After an evaluation, detections and their matches image by image, under the headline's name."""
        names = dict(bbox='box AP', segm='mask AP')
        return {names[kind]: match_detections(evaluation) for kind, evaluation in self._evaluations.items()}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        if 'segm' in self.metrics and any('masks' not in sample['pred_instances'] for sample in data_samples):
            raise ValueError("the model predicts no masks, so metric 'segm' cannot be evaluated; 'bbox' can")
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        special = self.classwise or self.outfile_prefix or self.metric_items or self._coco_api is None
        if special or not {'bbox', 'segm'}.issuperset(self.metrics):
            self.img_ids = [prediction['img_id'] for _, prediction in results]
            return super().compute_metrics(results)
        predictions = [prediction for _, prediction in results]
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        self.img_ids = sorted({prediction['img_id'] for prediction in predictions})
        found: dict[str, float] = {}
        for kind in self.metrics:
            self._evaluations[kind] = evaluation = self._evaluate(self._as_coco(predictions, kind), kind)
            found |= {f'{kind}_{name}': value for name, value in zip(NAMES, summarize(evaluation))}
        print_log(', '.join(f'{name} {value:.4f}' for name, value in found.items()), logger='current')
        return found

    def _as_coco(self, predictions: list[dict], kind: str) -> list[dict]:
        """Detections in COCO's format. Those with masks have no box: an object's size then is its mask's."""
        found = []
        for prediction in predictions:
            masked = kind == 'segm'
            scores = prediction.get('mask_scores', prediction['scores']) if masked else prediction['scores']
            shapes = prediction['masks'] if masked else map(self.xyxy2xywh, prediction['bboxes'])
            for label, score, shape in zip(prediction['labels'].tolist(), scores.tolist(), shapes):
                place = dict(image_id=prediction['img_id'], category_id=self.cat_ids[label], score=score)
                found.append({**place, 'segmentation' if masked else 'bbox': shape})
        return found

    def _evaluate(self, detections: list[dict], kind: str) -> COCOeval:
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._coco_api.loadRes(detections) if detections else _nothing(self._coco_api)
            evaluation = evaluator()(self._coco_api, found, kind)
            evaluation.params.catIds, evaluation.params.imgIds = self.cat_ids, self.img_ids
            evaluation.params.maxDets, evaluation.params.iouThrs = list(self.proposal_nums), self.iou_thrs
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation


@METRICS.register_module()
class SafeCocoPanopticMetric(CocoPanopticMetric):
    """mmdet's CocoPanopticMetric on copies of the predictions.

    The original writes into them, so that what is drawn or dumped afterwards has the first class where nothing was
    found.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        copies = []
        for sample in data_samples:
            found = sample['pred_panoptic_seg']
            copies.append({**sample, 'pred_panoptic_seg': {**found, 'sem_seg': found['sem_seg'].clone()}})
        super().process(data_batch, copies)


def evaluator() -> type[COCOeval]:
    """faster-coco-eval's COCOeval, or pycocotools' where that is not installed."""
    if find_spec('faster_coco_eval') is None:
        return COCOeval
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    return COCOeval_faster


def summarize(evaluation: COCOeval) -> list[float]:
    """COCO's twelve numbers as pycocotools defines them: AP, AP50, AP75, AP by size, then recalls; -1 for none.

    faster-coco-eval's own summary takes AP over the largest number of detections, pycocotools' over 100.
    """
    p = evaluation.params
    precision, recall = evaluation.eval['precision'], evaluation.eval['recall']

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    few = [number for number, at_most in enumerate(p.maxDets) if at_most == AT_MOST]
    at = [np.flatnonzero(np.asarray(p.iouThrs) == threshold) for threshold in (0.5, 0.75)]
    numbers = [mean(precision[:, :, :, 0, few]), *(mean(precision[rows][:, :, :, 0, -1]) for rows in at)]
    numbers += [mean(precision[:, :, :, size, -1]) for size in (1, 2, 3)]
    numbers += [mean(recall[:, :, 0, number]) for number in range(len(p.maxDets))]
    return numbers + [mean(recall[:, :, size, -1]) for size in (1, 2, 3)]


def match_detections(evaluation: COCOeval) -> Detections:
    """Each detection's match at each threshold, from the overlaps that the evaluation has computed."""
    p = evaluation.params
    objects = np.zeros((len(p.imgIds), len(p.catIds)))
    truths, found = (_by_place(api, p) for api in (evaluation.cocoGt, evaluation.cocoDt))
    parts: list[tuple] = []
    for (i, c), place in (((i, c), (image, cat)) for i, image in enumerate(p.imgIds) for c, cat in enumerate(p.catIds)):
        crowd = np.array([bool(truth.get('iscrowd')) for truth in truths[place]], bool)
        objects[i, c] = (~crowd).sum()
        scores = np.array([detection['score'] for detection in found[place]])
        scores = scores[np.argsort(-scores, kind='stable')][:AT_MOST]
        if len(scores):
            outcomes = np.zeros((len(scores), len(p.iouThrs)))
            if len(crowd):
                overlaps = np.reshape(evaluation.ious[place], (-1, len(crowd)))[:AT_MOST]
                outcomes = match(overlaps, crowd, p.iouThrs)
            parts.append((scores, np.full(len(scores), i), np.full(len(scores), c), outcomes.astype(np.int8)))
    columns = zip(*parts) if parts else ([np.zeros(0)], [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros((0, 10))])
    ranked, images, classes, matches = (np.concatenate(column) for column in columns)
    return Detections(ranked, images, classes, matches, objects)


def match(overlaps: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """COCO's greedy matching within one image and class.

    Each detection in turn takes the free object that it overlaps most, the last of equals; failing that a crowd.

    Args:
        overlaps: [detections, objects], best score first.
        crowd: which objects are crowds, that many detections may share, [objects].
        thresholds: the least overlap of a match, [thresholds].

    Returns:
        1 for a match, 0 for none, -1 for a crowd, [detections, thresholds].
    """
    least = np.minimum(thresholds, 1 - 1e-10)
    outcomes = np.zeros((len(overlaps), len(least)), np.int8)
    free = np.tile(~crowd, (len(least), 1))
    for row, outcome in zip(overlaps, outcomes):
        usable = np.where(free & (row >= least[:, None]), row, -1)
        best = len(crowd) - 1 - usable[:, ::-1].argmax(1)
        taken = usable[np.arange(len(least)), best] >= 0
        free[taken, best[taken]] = False
        outcome[(crowd & (row >= least[:, None])).any(1)] = -1
        outcome[taken] = 1
    return outcomes


def _by_place(api: COCO, params: Any) -> dict[tuple, list[dict]]:
    """Annotations by image and category, in the evaluator's order."""
    places: dict[tuple, list[dict]] = defaultdict(list)
    for annotation in api.loadAnns(api.getAnnIds(imgIds=params.imgIds, catIds=params.catIds)):
        places[annotation['image_id'], annotation['category_id']].append(annotation)
    return places


def _nothing(truth: COCO) -> COCO:
    """Results without a detection."""
    empty = COCO()
    empty.dataset = {**truth.dataset, 'annotations': []}
    empty.createIndex()
    return empty
