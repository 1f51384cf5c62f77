"""Pictures of label maps, of depths and of clusters, at an image's size."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')

MAGNIFIED = 512, 4096
"""Pixels: small pictures are drawn at the largest multiple of their size whose short and long side are at most this."""
FARTHEST = 24
"""Of the 256 colours of depth: those before it are nearly black."""
FEW = 0.3
"""A depth map that knows a smaller part of its pixels has them drawn larger."""
LONGEST = 65500
"""Pixels: the longest side that libjpeg writes, a little less than the format's own limit."""


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        FileNotFoundError: there is no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(folder)!r}')
    # Hidden files are no pictures, whatever they end in: macOS keeps what it knows of a.jpg in ._a.jpg.
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith('.'))
    if not files:
        raise FileNotFoundError(f'no pictures in {str(folder)!r}: files ending in {", ".join(SUFFIXES)} are looked for')
    return files


def paint_labels(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class colours over an image [H, W, 3] uint8; labels outside the palette (ignored pixels) stay uncoloured."""
    known = labels < len(palette)
    colours = palette[np.where(known, labels, 0)]
    mixed = (0.4 * image + 0.6 * colours).astype(np.uint8)
    return np.where(known[..., None], mixed, image)


def paint_depth(depth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """A depth map [H, W] in colours, RGB [H, W, 3] uint8: from red at the near bound to blue at the far one.

    Even steps of colour are even factors. Where the depth isn't known, which 0 says, it is black; of maps that know
    few pixels, as a laser's, those are drawn larger.
    """
    known = np.isfinite(depth) & (depth > 0)
    logs = np.log(np.where(known, depth, bounds[1]).clip(*bounds) / bounds[0]) / np.log(bounds[1] / bounds[0])
    nearness: np.ndarray = np.where(known, FARTHEST + (255 - FARTHEST) * (1 - logs), 0).round().astype(np.uint8)
    if 0 < known.mean() < FEW:
        nearness = cv2.dilate(nearness, np.ones((3, 3), np.uint8))
    coloured = cv2.applyColorMap(nearness, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(nearness[..., None] > 0, coloured, 0).astype(np.uint8)


def cluster_borders(clusters: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] bool of an image's size: pixels whose right or lower neighbour is of another cluster."""
    full = enlarge(clusters, size)
    borders = np.zeros(full.shape, bool)
    borders[:, :-1] |= full[:, :-1] != full[:, 1:]
    borders[:-1] |= full[:-1] != full[1:]
    return borders


def enlarge(clusters: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of the token grid at an image's size: every pixel has its token's label."""
    rows, columns = (np.arange(side) * few // side for side, few in zip(size, clusters.shape))
    return clusters[rows[:, None], columns]


def magnify(picture: np.ndarray) -> np.ndarray:
    """A small picture or label map [H, W, ...] at a multiple of its size: the borders of its clusters would hide it."""
    factor = max(1, min(most // side for most, side in zip(MAGNIFIED, sorted(picture.shape[:2]))))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_clusters(image: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Each cluster in its mean colour, with its border."""
    full = enlarge(clusters, image.shape[:2])
    counts = np.bincount(full.ravel()).clip(1)
    means = np.stack([np.bincount(full.ravel(), image[..., c].ravel()) / counts for c in range(3)], axis=1)
    drawn = means[full].astype(np.uint8)
    borders = cluster_borders(clusters, image.shape[:2])
    drawn[borders] = drawn[borders] // 2 + 128
    return drawn


def read_rgb(path: str, size: tuple[int, int]) -> np.ndarray:
    """An image file as RGB [H, W, 3] uint8, resized to (H, W)."""
    # OpenCV's own reading takes no names that aren't UTF-8.
    pixels: Any = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)[..., ::-1]


def read_filled(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """The middle of an image file as RGB [H, W, 3] uint8, in the proportions of (H, W); None if it can't be read."""
    data = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if pixels is None:
        return None
    return fill(pixels[..., ::-1], size)


def fill(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of an image [H, W, 3], as large as can be, at a size (H, W)."""
    height, width = pixels.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
    return cv2.resize(middle, size[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def encode_jpeg(image: np.ndarray) -> bytes:
    """An RGB image [H, W, 3] uint8 as JPEG, at a smaller size if a side is too long for one."""
    scale = LONGEST / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, int(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
