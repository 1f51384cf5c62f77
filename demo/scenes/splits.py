"""What the writers of all layouts share: which scene is which, so that each layout has the same ones."""

import zlib
from pathlib import Path

import cv2
import numpy as np

from fewtokens.measure.files import write_whole

from .compose import compose_scene


def check_sizes(size: int, counts: dict[str, int]) -> None:
    """Raises a ValueError for scenes too small to draw, or a number of scenes below 0."""
    for name, value in dict(size=size, **counts).items():
        if value < (32 if name == 'size' else 0):
            raise ValueError(
                f'{name}={value}: the side of a scene is at least 32 pixels, the number of scenes at least 0'
            )


def draw_scene(
    textures: list[np.ndarray], size: int, seed: int, split: str, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene of a data set, as `compose_scene` returns it; only the seed, its split and its number matter."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
    return compose_scene(rng, textures, size)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes [H, W] (of a PNG 16 bits too) or [H, W, 3], its colours in OpenCV's order, in the format of the suffix."""
    # OpenCV's own writing says nothing of a picture that found no room on the disk.
    content = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    write_whole(path, lambda temporary: temporary.write_bytes(content))
