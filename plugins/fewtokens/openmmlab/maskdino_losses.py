"""How MaskDINO is trained: its queries are matched with what is in a picture by class, box and mask."""

from typing import Any, NamedTuple

import torch
from mmcv.ops import point_sample
from mmdet.models.utils import get_uncertain_point_coords_with_randomness, preprocess_panoptic_gt
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.structures.mask import mask2bbox
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]
"""Of each picture, queries and the objects that they should find."""
UNIT = dict(img_shape=(1, 1))
"""What mmdet is told of a picture's size: boxes are parts of its sides already."""


class Found(NamedTuple):
    """What queries stand for: logits of classes [B, Q, classes] and of masks [B, Q, h, w], and boxes [B, Q, 4].

    Boxes are centers, widths and heights, as parts of the padded picture's sides.
    """

    scores: Tensor
    masks: Tensor
    boxes: Tensor


class MatchedLosses:
    """Losses of what was found and of what is there, and the matching of the two, both with the published weights.

    Args:
        num_things: the first classes; those after them are stuff, whose boxes no loss looks at.
        num_points, oversample_ratio, importance_sample_ratio: where masks are compared; see mmdet's Mask2FormerHead.
    """

    def __init__(
        self,
        num_classes: int,
        num_things: int,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ) -> None:
        self.num_classes, self.num_things, self.num_points = num_classes, num_things, num_points
        self.sampling = num_points, oversample_ratio, importance_sample_ratio
        costs = [
            dict(type='mmdet.FocalLossCost', weight=4.0),
            dict(type='mmdet.CrossEntropyLossCost', weight=5.0),
            dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
            dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
        ]
        self.assigner = TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=costs))
        self.of_class = MODELS.build(dict(type='mmdet.FocalLoss', loss_weight=4.0))
        self.of_mask = MODELS.build(dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0))
        self.of_dice = MODELS.build(dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0))
        self.of_box = MODELS.build(dict(type='mmdet.L1Loss', loss_weight=5.0))
        self.of_iou = MODELS.build(dict(type='mmdet.GIoULoss', loss_weight=2.0))

    def target(self, sample: DetDataSample) -> DetDataSample:
        """Things and stuff of a sample alike: their labels, masks of the padded size, and the boxes around these."""
        stuff = sample.gt_sem_seg.sem_seg if 'gt_sem_seg' in sample else None
        things = sample.gt_instances
        labels, masks = preprocess_panoptic_gt(
            things.labels, things.masks, stuff, self.num_things, self.num_classes - self.num_things
        )
        there = InstanceData(labels=labels, masks=masks.float(), bboxes=boxes_around(masks.bool()))
        return DetDataSample(metainfo=UNIT, gt_instances=there)

    @torch.no_grad()
    def match(self, found: Found, targets: list[DetDataSample]) -> Pairs:
        """The queries that come nearest to the objects of each picture."""
        pairs = []
        for scores, masks, boxes, target in zip(*found, targets):
            there = target.gt_instances
            points = torch.rand(1, self.num_points, 2, device=masks.device)
            sampled = [
                point_sample(some[:, None], points.expand(len(some), -1, -1))[:, 0] for some in (masks, there.masks)
            ]
            guesses = InstanceData(scores=scores, bboxes=bbox_cxcywh_to_xyxy(boxes), masks=sampled[0])
            truths = InstanceData(labels=there.labels, bboxes=there.bboxes, masks=sampled[1])
            objects = self.assigner.assign(guesses, truths, UNIT).gt_inds
            queries = objects.nonzero().flatten()
            pairs.append((queries, objects[queries] - 1))
        return pairs

    def __call__(self, found: Found, targets: list[DetDataSample], pairs: Pairs | None = None) -> dict[str, Tensor]:
        """Five losses by name; queries in no pair should find nothing. `pairs` are those of `match` by default."""
        pairs = self.match(found, targets) if pairs is None else pairs
        batch = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(pairs)])
        places = batch, torch.cat([queries for queries, _ in pairs])
        there = InstanceData.cat([target.gt_instances[objects] for target, (_, objects) in zip(targets, pairs)])
        count = reduce_mean(found.scores.new_tensor(float(len(batch)))).clamp(min=1).item()

        labels = batch.new_full(found.scores.shape[:2], self.num_classes)
        labels[places] = there.labels
        things = there.labels < self.num_things
        boxes, true_boxes = found.boxes[places][things], there.bboxes[things]
        points, true_points = self._sampled(found.masks[places][:, None], there.masks[:, None])
        return dict(
            loss_cls=self.of_class(found.scores.flatten(0, 1), labels.flatten(), avg_factor=count),
            loss_mask=self.of_mask(points.flatten(), true_points.flatten(), avg_factor=count * self.num_points),
            loss_dice=self.of_dice(points, true_points, avg_factor=count),
            loss_bbox=self.of_box(boxes, bbox_xyxy_to_cxcywh(true_boxes), avg_factor=count),
            loss_iou=self.of_iou(bbox_cxcywh_to_xyxy(boxes), true_boxes, avg_factor=count),
        )

    def _sampled(self, masks: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Masks [N, 1, h, w] and what they should be, at the points [N, P] where the former are least sure."""
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(masks, None, *self.sampling)
            true = point_sample(there, points)[:, 0]
        return point_sample(masks, points)[:, 0], true


def boxes_around(masks: Tensor) -> Tensor:
    """Corners [N, 4], as parts of the sides, of boxes around masks [N, h, w]; zeros where a mask has nothing."""
    height, width = masks.shape[1:]
    boxes = mask2bbox(masks)
    return boxes / boxes.new_tensor([width, height, width, height])


def denoised(targets: list[DetDataSample], noise: dict[str, Any], device: Any) -> Pairs:
    """Pairs of the queries that mmdet's CdnQueryGenerator made: in each group the first ones, in order."""
    groups = noise['num_denoising_groups']
    firsts = torch.arange(groups, device=device)[:, None] * (noise['num_denoising_queries'] // groups)
    objects = [torch.arange(len(target.gt_instances), device=device) for target in targets]
    return [((firsts + some).flatten(), some.repeat(groups)) for some in objects]
