"""Writes rooms to disk with their depth, in the layout that DepthDataset reads."""

import os
import zlib
from pathlib import Path

import numpy as np

from fewtokens.measure.progress import progress_bar

from .rooms import compose_room
from .splits import check_sizes, write_image
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
        images, depths = (Path(out) / kind / split for kind in ('images', 'depth'))
        images.mkdir(parents=True, exist_ok=True)
        depths.mkdir(parents=True, exist_ok=True)
        with progress_bar(count) as bar:
            for number in range(count):
                rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
                image, depth = compose_room(rng, textures, size)
                write_image(images / f'{number:05d}.jpg', image[..., ::-1])
                write_image(depths / f'{number:05d}.png', (depth * METRE).round().astype(np.uint16))
                bar.update()
