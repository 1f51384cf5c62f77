"""Draws one scene: a background and occluding objects, each cut from a photograph, under uneven light."""

from collections.abc import Callable

import cv2
import numpy as np


def compose_scene(
    rng: np.random.Generator, textures: list[np.ndarray], size: int = 256
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a scene from the textures.

    Args:
        rng: all randomness comes from here: the same generator state gives the same scene.
        textures: photographs [H, W, 3] uint8; a surface's class is its photograph's index.
        size: side of the scene in pixels.

    Returns:
        image [size, size, 3] uint8, labels [size, size] uint8 (index of the texture) and objects [size, size] uint8:
        the number of the object that is seen at a pixel, 0 for the background; a later object covers the earlier ones.
    """
    image = np.empty((size, size, 3), np.float32)
    labels = np.empty((size, size), np.uint8)
    objects = np.zeros((size, size), np.uint8)
    everywhere = np.ones((size, size), bool)
    _paint(rng, image, labels, everywhere, textures)
    for number in range(1, 1 + rng.integers(5, 14)):
        mask = _SHAPES[rng.choice(len(_SHAPES), p=_SHARES)](rng, size)
        _paint(rng, image, labels, mask, textures)
        objects[mask] = number
    image *= _light(rng, size)
    image += rng.normal(0, rng.uniform(2, 8), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels, objects


def _paint(rng: np.random.Generator, image, labels, mask, textures: list[np.ndarray]) -> None:
    """Fills the mask with a random crop of a random photograph, at a random scale, brightness and contrast."""
    index = int(rng.integers(len(textures)))
    crop = _crop(rng, textures[index], image.shape[0])
    contrast, brightness = rng.uniform(0.75, 1.25), rng.uniform(-25, 25)
    mean = crop.mean(axis=(0, 1))
    image[mask] = ((crop - mean) * contrast + mean + brightness)[mask]
    labels[mask] = index


def _crop(rng: np.random.Generator, texture: np.ndarray, size: int) -> np.ndarray:
    """A random square of the photograph, resized to size: 0.8 to 1.6 pixels of it a pixel of the scene."""
    side = min(int(size * rng.uniform(0.8, 1.6)), *texture.shape[:2])
    top = rng.integers(texture.shape[0] - side + 1)
    left = rng.integers(texture.shape[1] - side + 1)
    square = texture[top : top + side, left : left + side]
    if rng.random() < 0.5:
        square = square[:, ::-1]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=interpolation).astype(np.float32)


def _ellipse(rng: np.random.Generator, size: int) -> np.ndarray:
    axes = [int(a) for a in rng.integers(size // 12, size // 4, 2)]
    canvas = np.zeros((size, size), np.uint8)
    cv2.ellipse(canvas, _point(rng, size), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return canvas.astype(bool)


def _polygon(rng: np.random.Generator, size: int) -> np.ndarray:
    corners = rng.integers(3, 7)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(size / 10, size / 3.2, corners)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + _point(rng, size)
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return canvas.astype(bool)


def _line(rng: np.random.Generator, size: int) -> np.ndarray:
    canvas = np.zeros((size, size), np.uint8)
    cv2.line(canvas, _point(rng, size), _point(rng, size), 1, int(rng.integers(5, 15)))
    return canvas.astype(bool)


def _dot(rng: np.random.Generator, size: int) -> np.ndarray:
    canvas = np.zeros((size, size), np.uint8)
    cv2.circle(canvas, _point(rng, size), int(rng.integers(5, 16)), 1, -1)
    return canvas.astype(bool)


def _clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """A handful of small pieces of one surface, close together."""
    canvas = np.zeros((size, size), np.uint8)
    center = np.array(_point(rng, size))
    for _ in range(rng.integers(3, 7)):
        x, y = (center + rng.normal(0, size / 14, 2)).astype(int)
        cv2.circle(canvas, (int(x), int(y)), int(rng.integers(4, 9)), 1, -1)
    return canvas.astype(bool)


_SHAPES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (_ellipse, _polygon, _line, _dot, _clutter)
_SHARES = (0.25, 0.25, 0.23, 0.2, 0.07)


def _point(rng: np.random.Generator, size: int) -> tuple[int, int]:
    x, y = rng.integers(0, size, 2)
    return int(x), int(y)


def _light(rng: np.random.Generator, size: int) -> np.ndarray:
    """A ramp of brightness across the scene in a random direction, [size, size, 1]."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    along = np.linspace(-1, 1, size)
    ramp = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]
    return (1 + strength * ramp)[..., None].astype(np.float32)
