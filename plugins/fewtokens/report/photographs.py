"""Photographs to look at: those that scikit-image and scikit-learn carry in their wheels, and a user's own."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..measure.files import UnreadableError, shown
from .pictures import fill, find_pictures


def bundled_photographs(side: int | None = None) -> dict[str, np.ndarray]:
    """Each by its name, RGB [H, W, 3] uint8; with a side its middle alone, as a square of so many pixels.

    Raises:
        ImportError: scikit-image or scikit-learn is not installed.
    """
    try:
        import skimage.data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(f'the photographs need {error.name}: pip install "fewtokens[demo]"') from error
    readers: dict[str, Callable[[], np.ndarray]] = dict(
        astronaut=skimage.data.astronaut,
        chelsea=skimage.data.chelsea,
        china=lambda: load_sample_image('china.jpg'),
        coffee=skimage.data.coffee,
        flower=lambda: load_sample_image('flower.jpg'),
        motorcycle=lambda: skimage.data.stereo_motorcycle()[0],
        rocket=skimage.data.rocket,
    )
    return {name: square(read(), side) for name, read in readers.items()}


def read_photographs(folder: Path, side: int | None = None) -> dict[str, np.ndarray]:
    """The same of a folder's pictures.

    Raises:
        FileNotFoundError: there is no folder, or no picture in it.
        UnreadableError: a picture cannot be read.
    """
    return {shown(file.name): square(_read(file), side) for file in find_pictures(folder)}


def _read(file: Path) -> np.ndarray:
    """Turned as its EXIF orientation says; RGB, whatever the file holds."""
    # OpenCV's own reading takes no names that aren't UTF-8, and its decoder no empty files.
    content = np.fromfile(file, np.uint8)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # of sizes that it refuses
        pixels = None
    if pixels is None:
        raise UnreadableError(f'{shown(file)} is no readable picture')
    return pixels[..., ::-1]


def square(picture: np.ndarray, side: int | None) -> np.ndarray:
    """The middle of a picture [H, W, 3], as large as can be, at a side's length; all of it without one."""
    return np.ascontiguousarray(picture) if side is None else fill(picture, (side, side))
