"""Writes rooms to disk with their depth, in the layout that DepthDataset reads."""

import os
from pathlib import Path

import numpy as np

from .rooms import compose_room
from .splits import check_sizes, generator_of, write_split
from .textures import load_textures

METRE = 256
"""What it is in a depth map's PNG, as in KITTI's."""


def write_depth(out: str | os.PathLike, counts: dict[str, int], size: int = 448, seed: int = 0) -> None:
    """Writes `images/SPLIT/NNNNN.jpg` and `depth/SPLIT/NNNNN.png` below `out`.

    A room depends on the seed, its split and its number alone: a larger data set begins with the smaller one.

    Args:
        out: folder; files that are already there are written again.
        counts: number of rooms a split, for instance dict(training=200, validation=40).
        size: side of a room's picture in pixels.
        seed: seed of the whole data set.
    """
    check_sizes(size, counts)
    textures = load_textures()
    for split, count in counts.items():

        def draw(number: int, split: str = split) -> tuple[np.ndarray, np.ndarray]:
            image, depth = compose_room(generator_of(seed, split, number), textures, size)
            return image, (depth * METRE).round().astype(np.uint16)

        write_split(Path(out), 'depth', split, count, draw)
