"""What a model sees in an image, and what is there: drawn over the image."""

from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from .pictures import enlarge, magnify, paint_depth, paint_labels, read_rgb

SCORE = 0.3
"""Detections that score more are drawn, as in mmdet's pictures."""


def read_image(sample: Any) -> np.ndarray:
    """A sample's image at its own size, or at a multiple if it is small: RGB [H, W, 3] uint8."""
    return magnify(read_rgb(sample.img_path, sample.ori_shape))


def draw_prediction(image: np.ndarray, sample: Any, metainfo: dict[str, Any]) -> np.ndarray:
    """Depth, classes, panoptic segments, or detections with their masks, whichever the sample has.

    Args:
        image: the sample's, at any scale.
        sample: of mmseg or mmdet, with predictions.
        metainfo: classes and palette, or what `with_depth_bounds` gives.
    """
    if 'pred_depth_map' in sample:
        return _paint_depth(image, sample.pred_depth_map, metainfo)
    if 'pred_sem_seg' in sample:
        return _paint(image, sample.pred_sem_seg.data, metainfo)
    if 'pred_panoptic_seg' in sample:
        return _draw_segments(image, sample.pred_panoptic_seg.sem_seg[0].cpu().numpy(), metainfo)
    found = sample.pred_instances.cpu()
    return _draw_objects(image, found[found.scores > SCORE], sample.ori_shape, metainfo)


def draw_truth(image: np.ndarray, sample: Any, metainfo: dict[str, Any]) -> np.ndarray | None:
    """The same of what is annotated; None where the test pipeline doesn't load it."""
    semantic, objects = sample.get('gt_sem_seg'), sample.get('gt_instances')
    if 'gt_depth_map' in sample:
        return _paint_depth(image, sample.gt_depth_map, metainfo)
    if semantic is not None and objects is None:
        return _paint(image, semantic.data, metainfo)
    if semantic is not None:
        return _draw_segments(image, _panoptic(semantic.sem_seg[0].numpy(), objects, metainfo), metainfo)
    return _draw_objects(image, objects, sample.ori_shape, metainfo) if objects is not None and len(objects) else None


def with_depth_bounds(metainfo: dict[str, Any], sample: Any) -> dict[str, Any]:
    """`metainfo` with the bounds that all depth maps of an image are drawn between, so that they can be compared.

    They are those of its truth, or of its prediction where there is no truth; nothing is added for other tasks, or
    where there are bounds already.
    """
    maps = (sample.get(name) for name in ('gt_depth_map', 'pred_depth_map'))
    depths = [depth[depth > 0].float().cpu().numpy() for depth in (each.data for each in maps if each is not None)]
    known = next((depth[np.isfinite(depth)] for depth in depths if depth.size), np.empty(0))
    if 'depth_bounds' in metainfo or not known.size:
        return metainfo
    low, high = np.percentile(known, (1, 99))
    return {**metainfo, 'depth_bounds': (float(low), float(max(high, low * 1.01)))}


def _paint_depth(image: np.ndarray, depth: PixelData, metainfo: dict[str, Any]) -> np.ndarray:
    # Without bounds nothing is known, and all of it black.
    bounds = metainfo.get('depth_bounds', (1.0, 2.0))
    return paint_depth(enlarge(depth.data[0].float().cpu().numpy(), image.shape[:2]), bounds)


def _paint(image: np.ndarray, labels: torch.Tensor, metainfo: dict[str, Any]) -> np.ndarray:
    full = enlarge(labels[0].cpu().numpy(), image.shape[:2])
    return paint_labels(image, full, np.array(metainfo['palette'], np.uint8))


def _panoptic(labels: np.ndarray, objects: InstanceData, metainfo: dict[str, Any]) -> np.ndarray:
    """mmdet's panoptic map of classes and objects: number of the object * 1000 + class."""
    from mmdet.structures import INSTANCE_OFFSET

    segments = np.where(labels < len(metainfo['classes']), labels, len(metainfo['classes'])).astype(np.int64)
    for number, (mask, label) in enumerate(zip(objects.masks.to_ndarray(), objects.labels)):
        segments[mask > 0] = (number + 1) * INSTANCE_OFFSET + int(label)
    return segments


def _draw_segments(image: np.ndarray, segments: np.ndarray, metainfo: dict[str, Any]) -> np.ndarray:
    if (segments == len(metainfo['classes'])).all():
        return image
    return _draw(image, 'panoptic_seg', PixelData(sem_seg=enlarge(segments, image.shape[:2])[None]), metainfo)


def _draw_objects(image: np.ndarray, objects: InstanceData, size: Any, metainfo: dict[str, Any]) -> np.ndarray:
    from mmdet.structures.bbox import get_box_tensor

    drawn = InstanceData(bboxes=get_box_tensor(objects.bboxes) * image.shape[0] / size[0], labels=objects.labels)
    if 'scores' in objects:
        drawn.scores = objects.scores
    if 'masks' in objects and len(objects):
        masks = objects.masks.numpy() if isinstance(objects.masks, torch.Tensor) else objects.masks.to_ndarray()
        drawn.masks = torch.from_numpy(np.stack([enlarge(mask, image.shape[:2]) for mask in masks]))
    return _draw(image, 'instances', drawn, metainfo)


def with_colour_tuples(metainfo: dict[str, Any]) -> dict[str, Any]:
    """For mmdet's visualizer, which takes colours as tuples alone: configs have lists."""
    if 'palette' not in metainfo:
        return metainfo
    return {**metainfo, 'palette': [tuple(colour) for colour in metainfo['palette']]}


def _draw(image: np.ndarray, kind: str, drawn: Any, metainfo: dict[str, Any]) -> np.ndarray:
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer(line_width=2, alpha=0.6)
    visualizer.dataset_meta = with_colour_tuples(metainfo)
    sample = DetDataSample()
    # Truth and prediction are drawn alike, but for scores.
    setattr(sample, f'gt_{kind}', drawn)
    state = np.random.get_state()
    # The visualizer tells objects of a class apart by random hues: the same in every picture.
    np.random.seed(0)
    visualizer.add_datasample('drawn', image, sample, draw_pred=False)
    np.random.set_state(state)
    return visualizer.get_image()
