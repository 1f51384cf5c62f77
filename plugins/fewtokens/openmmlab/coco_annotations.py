"""Finds out whether COCO annotation files fit their images, each other and the model, before anything runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .config import list_evaluators

INSTANCES, PANOPTIC = 'instances', 'panoptic'
METRICS = {
    'CocoMetric': INSTANCES,
    'FastCocoMetric': INSTANCES,
    'CocoPanopticMetric': PANOPTIC,
    'SafeCocoPanopticMetric': PANOPTIC,
}


def check_annotations(config: Config) -> None:
    """Checks the annotation files of a config's test set and of its evaluators, where the data set is COCO's or alike.

    A box may reach beyond its image, but not lie outside it: no detector could find that.

    Raises:
        FileNotFoundError: an evaluator's folder of panoptic pictures isn't there.
        ValueError: a file is cut short or of another kind, an annotation's image, category or box is impossible, or
            the classes of data set, model and files are not the same.
    """
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    cls = _coco_class(config, dataset)
    if cls is None:
        return
    kind = PANOPTIC if 'Panoptic' in cls.__name__ else INSTANCES
    path = Path(dataset.get('data_root') or '') / dataset.ann_file
    metainfo = {**cls.METAINFO, **(dataset.get('metainfo') or {})}
    _check_heads(config.model, metainfo)
    data = _read(path, kind)
    _check_classes(path, data, metainfo['classes'])
    for evaluator in list_evaluators(config.test_evaluator):
        if evaluator['type'] not in METRICS or not evaluator.get('ann_file'):
            continue
        truth, compared = Path(evaluator['ann_file']), METRICS[evaluator['type']]
        content = data if (truth, compared) == (path, kind) else _read(truth, compared)
        _check_truth(truth, content, path, data, evaluator)


def _coco_class(config: Config, dataset: Config) -> Any:
    """mmdet's class of a data set that is read as COCO is."""
    if config.get('default_scope') != 'mmdet':
        return None
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    cls = DATASETS.get(dataset.type)
    # LVIS and Objects365 read their files in ways of their own.
    return cls if getattr(cls, 'load_data_list', None) is CocoDataset.load_data_list else None


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'annotation file {str(path)!r} is cut short or no JSON: {error}') from error
    missing = [key for key in ('images', 'categories') if not isinstance(content, dict) or not content.get(key)]
    if missing:
        raise ValueError(f"{str(path)!r} is no annotation file in COCO's format: it has no {' and no '.join(missing)}")
    _check_entries(content['images'], ('id', 'file_name', 'height', 'width'), 'image', path)
    _check_entries(content['categories'], ('id', 'name'), 'category', path)
    annotations = content.get('annotations') or []
    _check_entries(annotations, ('image_id',), 'annotation', path)
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    for number, annotation in enumerate(annotations):
        problem = _problem(annotation, kind, images, categories)
        if problem:
            raise ValueError(f'annotation {annotation.get("id", number)} of {str(path)!r} {problem}')
    return content


def _check_entries(entries: Any, keys: tuple[str, ...], name: str, path: Path) -> None:
    if not isinstance(entries, list):
        raise ValueError(f"{str(path)!r} is no annotation file in COCO's format: what it has of {name} is no list")
    for number, entry in enumerate(entries):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ValueError(f'{name} {number} (counted from 0) of {str(path)!r} has no {" and no ".join(missing)}')


def _problem(annotation: dict[str, Any], kind: str, images: dict[int, dict], categories: set[int]) -> str | None:
    found = PANOPTIC if 'segments_info' in annotation else INSTANCES
    if found != kind:
        return f'is of the {found} kind: a file of the {kind} kind belongs here'
    image = images.get(annotation['image_id'])
    if image is None:
        return f'is of image {annotation["image_id"]}, which the file does not list'
    for segment in annotation.get('segments_info', [annotation]):
        box = segment.get('bbox')
        if 'category_id' not in segment or not isinstance(box, list) or len(box) != 4:
            return 'has no category_id, or no bbox of four numbers'
        if segment['category_id'] not in categories:
            return f'is of category {segment["category_id"]}, which the file does not list'
        x, y, width, height = box
        if x > image['width'] or y > image['height'] or x + width < 0 or y + height < 0:
            return f'has a box {segment["bbox"]} outside its image of {image["width"]} x {image["height"]} pixels'
    return None


def _check_classes(path: Path, content: dict[str, Any], classes: tuple[str, ...]) -> None:
    names = [category['name'] for category in content['categories']]
    missing = [name for name in classes if name not in names]
    if missing:
        raise ValueError(
            f"{str(path)!r} has no category {_some(missing)}, which is one of the data set's {len(classes)} classes; "
            f'its categories are {_some(names)}'
        )
    # Labels are given out in the file's order, whatever the order of the classes.
    ordered = [name for name in names if name in classes]
    if ordered != list(classes):
        raise ValueError(
            f"the data set's classes {_some(classes)} must be in the order of {str(path)!r}: {_some(ordered)}"
        )


def _check_truth(truth: Path, content: dict[str, Any], path: Path, data: dict[str, Any], evaluator: Config) -> None:
    if not evaluator.get('format_only') and not content.get('annotations'):
        raise ValueError(f'{str(truth)!r} has no annotations: there is nothing to compare predictions with')
    strangers = {image['id'] for image in data['images']} - {image['id'] for image in content['images']}
    if strangers:
        raise ValueError(f'{str(truth)!r}, which the evaluator reads, has no image {min(strangers)} of {str(path)!r}')
    folder = evaluator.get('seg_prefix')
    if folder and not Path(folder).is_dir():
        raise FileNotFoundError(f'the evaluator has no folder {folder!r}: set seg_prefix')


def _check_heads(model: Config, metainfo: dict[str, Any]) -> None:
    """Fails if a head has another number of classes than the data set."""
    if 'language_model' in model:  # classes are words
        return
    classes, things = len(metainfo['classes']), len(metainfo.get('thing_classes', metainfo['classes']))
    for name, head in _heads(model, 'model'):
        panoptic = 'num_stuff_classes' in head
        count = head.num_things_classes + head.num_stuff_classes if panoptic else head.num_classes
        if count != classes and (panoptic or count != things):
            raise ValueError(f'{name} is for {count} classes, the data set has {classes}: {_some(metainfo["classes"])}')


def _heads(part: Any, name: str) -> Iterator[tuple[str, Config]]:
    if isinstance(part, (list, tuple)):
        for number, item in enumerate(part):
            yield from _heads(item, f'{name}[{number}]')
    elif isinstance(part, dict):
        if 'num_stuff_classes' in part or 'num_classes' in part:
            yield name, part
        for key, item in part.items():
            # Proposals have no class; a semantic head beside others knows stuff alone.
            if key not in ('rpn_head', 'semantic_head', 'backbone', 'train_cfg', 'test_cfg'):
                yield from _heads(item, f'{name}.{key}')


def _some(names: Any) -> str:
    return ', '.join(map(repr, names[:5])) + (', …' if len(names) > 5 else '')
