"""Writes scenes to disk in COCO's layout, with instance and panoptic annotations."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from fewtokens.measure.files import write_json
from fewtokens.measure.progress import progress_bar

from .splits import check_sizes, draw_scene, write_image
from .textures import CLASSES, load_textures

MIN_PIXELS = 32
"""An object of which less is seen is no instance; its pixels belong to no segment."""

THINGS = [dict(id=1 + index, name=name, supercategory='object', isthing=1) for index, name in enumerate(CLASSES)]
STUFF = [
    dict(id=1 + len(CLASSES) + index, name=f'{name}-background', supercategory='background', isthing=0)
    for index, name in enumerate(CLASSES)
]


def write_coco(out: str | os.PathLike, counts: dict[str, int], size: int = 256, seed: int = 0) -> None:
    """Writes scenes and their annotations below `out`.

    `SPLIT/NNNNN.jpg` are the scenes, the same as `write_ade20k` writes. `annotations/instances_SPLIT.json` has the
    objects, `annotations/panoptic_SPLIT.json` objects and background, with a pixel's segment in
    `annotations/panoptic_SPLIT/NNNNN.png` (id = red + 256 green + 65536 blue, 0 for none). What is annotated is what is
    seen of an object, in one piece or several. Its category is the photograph that it is cut from: categories 1 to 10;
    11 to 20 are the same photographs as background.

    Args:
        out: folder; files that are already there are written again.
        counts: number of scenes a split, for instance dict(training=3000, validation=100).
        size: side of a scene in pixels.
        seed: seed of the whole data set.

    Raises:
        ValueError: a size below 32, or a number of scenes below 0.
    """
    check_sizes(size, counts)
    textures = load_textures()
    for split, count in counts.items():
        images, annotations = Path(out) / split, Path(out) / 'annotations'
        segments = annotations / f'panoptic_{split}'
        images.mkdir(parents=True, exist_ok=True)
        segments.mkdir(parents=True, exist_ok=True)
        described, instances, panoptic = [], [], []
        with progress_bar(count, f'drawing {split} scenes') as bar:
            for number in range(count):
                image, labels, objects = draw_scene(textures, size, seed, split, number)
                write_image(images / f'{number:05d}.jpg', image[..., ::-1])
                ids, found = annotate(labels, objects)
                write_image(segments / f'{number:05d}.png', _as_bgr(ids))
                described.append(dict(id=number, file_name=f'{number:05d}.jpg', width=size, height=size))
                panoptic.append(dict(image_id=number, file_name=f'{number:05d}.png', segments_info=found))
                for segment in found:
                    if segment['category_id'] <= len(THINGS):
                        mask = dict(segmentation=_encode(ids == segment['id']), image_id=number)
                        instances.append(segment | mask | dict(id=len(instances) + 1))
                bar.update()
        for kind, categories, listed in (('instances', THINGS, instances), ('panoptic', THINGS + STUFF, panoptic)):
            content = dict(images=described, annotations=listed, categories=categories)
            write_json(annotations / f'{kind}_{split}.json', content)


def annotate(labels: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Finds what is seen in a scene.

    Args:
        labels: index of the texture [H, W].
        objects: number of the object, 0 for the background [H, W].

    Returns:
        ids of segments [H, W], 0 where there is none, and COCO's description of each: the objects' ids are their
        numbers, the background's is 255.
    """
    ids, found = np.zeros(objects.shape, np.int32), []
    for number in np.unique(objects).tolist():
        mask = objects == number
        area = int(mask.sum())
        if area < MIN_PIXELS:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        group = THINGS if number else STUFF
        category = group[labels[mask][0]]['id']
        ids[mask] = segment = number or 255
        found.append(dict(id=segment, category_id=category, bbox=[int(v) for v in box], area=area, iscrowd=0))
    return ids, found


def _encode(mask: np.ndarray) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def _as_bgr(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids // 65536, ids // 256 % 256, ids % 256], -1).astype(np.uint8)
