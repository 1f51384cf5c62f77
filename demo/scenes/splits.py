"""What the writers of all layouts share: which scene is which, so that each layout has the same ones."""

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fewtokens.measure.files import write_whole
from fewtokens.measure.progress import progress_bar

from .compose import compose_scene


def check_sizes(size: int, counts: dict[str, int]) -> None:
    """Raises a ValueError for scenes too small to draw, or a number of scenes below 0."""
    for name, value in dict(size=size, **counts).items():
        if value < (32 if name == 'size' else 0):
            raise ValueError(
                f'{name}={value}: the side of a scene is at least 32 pixels, the number of scenes at least 0'
            )


def generator_of(seed: int, split: str, number: int) -> np.random.Generator:
    """What one scene is drawn by: only the seed, its split and its number matter."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), number])


def draw_scene(
    textures: list[np.ndarray], size: int, seed: int, split: str, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene of a data set, as `compose_scene` returns it; only the seed, its split and its number matter."""
    return compose_scene(generator_of(seed, split, number), textures, size)


def write_split(
    out: Path, kind: str, split: str, count: int, draw: Callable[[int], tuple[np.ndarray, np.ndarray]]
) -> None:
    """Writes pairs `images/SPLIT/NNNNN.jpg` and `KIND/SPLIT/NNNNN.png`, as `draw` returns them for each number.

    Args:
        draw: returns RGB [H, W, 3] and what the PNG holds [H, W].
    """
    images, maps = (out / folder / split for folder in ('images', kind))
    images.mkdir(parents=True, exist_ok=True)
    maps.mkdir(parents=True, exist_ok=True)
    with progress_bar(count, f'drawing {split} scenes') as bar:
        for number in range(count):
            image, of_pixels = draw(number)
            write_image(images / f'{number:05d}.jpg', image[..., ::-1])
            write_image(maps / f'{number:05d}.png', of_pixels)
            bar.update()


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes [H, W] (of a PNG 16 bits too) or [H, W, 3], its colours in OpenCV's order, in the format of the suffix."""
    # OpenCV's own writing says nothing of a picture that found no room on the disk.
    content = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    write_whole(path, lambda temporary: temporary.write_bytes(content))
