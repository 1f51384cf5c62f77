"""Writes scenes to disk in ADE20K's layout, which mmseg's data sets read."""

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from .compose import compose_scene
from .textures import load_textures


def write_ade20k(out: str | os.PathLike, counts: dict[str, int], size: int = 256, seed: int = 0) -> None:
    """Writes `images/SPLIT/NNNNN.jpg` and `annotations/SPLIT/NNNNN.png` below `out`.

    A pixel of an annotation is the class's index in `CLASSES` plus one (0 is ADE20K's "other", which no scene has).
    A scene depends on the seed, its split and its number alone: a larger data set begins with the smaller one.

    Args:
        out: folder; files that are already there are written again.
        counts: number of scenes a split, for instance dict(training=3000, validation=100).
        size: side of a scene in pixels.
        seed: seed of the whole data set.
    """
    for name, value in dict(size=size, **counts).items():
        if value < (32 if name == 'size' else 0):
            raise ValueError(
                f'{name}={value}: the side of a scene is at least 32 pixels, the number of scenes at least 0'
            )
    textures = load_textures()
    for split, count in counts.items():
        images, annotations = (Path(out) / kind / split for kind in ('images', 'annotations'))
        images.mkdir(parents=True, exist_ok=True)
        annotations.mkdir(parents=True, exist_ok=True)
        for number in track_iter_progress(range(count)) if count else ():
            rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
            image, labels = compose_scene(rng, textures, size)
            cv2.imwrite(str(images / f'{number:05d}.jpg'), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            cv2.imwrite(str(annotations / f'{number:05d}.png'), labels + 1)
