"""Writes scenes to disk in ADE20K's layout, which mmseg's data sets read."""

import os
from pathlib import Path

import numpy as np

from .splits import check_sizes, draw_scene, write_split
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
    check_sizes(size, counts)
    textures = load_textures()
    for split, count in counts.items():

        def draw(number: int, split: str = split) -> tuple[np.ndarray, np.ndarray]:
            image, labels, _ = draw_scene(textures, size, seed, split, number)
            return image, labels + 1

        write_split(Path(out), 'annotations', split, count, draw)
