"""Draws rooms and streets with true depth: things of any size on a floor, cut from photographs, in perspective."""

from collections.abc import Callable

import cv2
import numpy as np

from .rays import Hits, meet_box, meet_cylinder, meet_plane, meet_sphere

NEAR, FAR = 0.5, 40.0
"""Metres: no depth of a scene is outside."""


def compose_room(
    rng: np.random.Generator, textures: list[np.ndarray], size: int = 448
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scene from the textures.

    Args:
        rng: all randomness comes from here: the same generator state gives the same scene.
        textures: photographs [H, W, 3] uint8.
        size: side of the scene in pixels.

    Returns:
        image [size, size, 3] uint8 and depth [size, size] float32: metres along the camera's axis.
    """
    origin, rays = _camera(rng, size)
    depth = np.full(size * size, np.inf)
    image = np.zeros((size * size, 3))
    sun = rng.normal(size=3) * (1, 0.4, 1) + (0, 1.2, -0.6)
    sun /= np.linalg.norm(sun)
    for hits in _surfaces(rng, origin, rays):
        photograph = textures[rng.integers(len(textures))]
        seen = (hits.along < depth) & (hits.along < FAR)
        if seen.any():
            image[seen] = _shade(rng, hits, seen, photograph, sun, size)
            depth[seen] = hits.along[seen]
    return _develop(rng, image, depth, size), depth.reshape(size, size).astype(np.float32)


def _camera(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where it stands, and a ray for each pixel, one metre long along the camera's axis. Up is positive.

    Always nearly the same camera, as in data sets of depth: a picture alone doesn't tell its scale.
    """
    focal = rng.uniform(0.87, 0.93) * size
    tilt = rng.uniform(0.0, 0.25)
    across, down = np.meshgrid(*2 * [(np.arange(size) + 0.5 - size / 2) / focal])
    rays = np.stack([across, -down, np.ones_like(across)], axis=-1).reshape(-1, 3)
    lower = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return np.array([0, rng.uniform(1.45, 1.55), 0]), rays @ lower.T


def _surfaces(rng: np.random.Generator, origin: np.ndarray, rays: np.ndarray) -> list[Hits]:
    """A floor, walls around, a ceiling at times, and 4 to 10 things."""
    back = rng.uniform(6, 30)
    found = [meet_plane(origin, rays, 1, 0.0), meet_plane(origin, rays, 2, back)]
    found += [meet_plane(origin, rays, 0, side * rng.uniform(2.0, 2 + back / 2)) for side in (-1, 1)]
    found += [meet_plane(origin, rays, 1, rng.uniform(2.6, 3.5) + back / 8)]
    for _ in range(rng.integers(4, 11)):
        found.append(_THINGS[rng.choice(len(_THINGS), p=_SHARES)](rng, origin, rays, back))
    return found


def _place(rng: np.random.Generator, back: float, height: float) -> np.ndarray:
    """Where a thing stands: as likely near as far, inside the picture, on the floor."""
    away = np.exp(rng.uniform(np.log(2.5), np.log(back)))
    return np.array([rng.uniform(-0.55, 0.55) * away, height / 2, away])


def _box(rng: np.random.Generator, origin: np.ndarray, rays: np.ndarray, back: float) -> Hits:
    sides = np.exp(rng.uniform(np.log(0.3), np.log(2.2), 3))
    return meet_box(origin, rays, _place(rng, back, sides[1]), sides / 2, rng.uniform(0, np.pi))


def _ball(rng: np.random.Generator, origin: np.ndarray, rays: np.ndarray, back: float) -> Hits:
    radius = np.exp(rng.uniform(np.log(0.15), np.log(0.8)))
    return meet_sphere(origin, rays, _place(rng, back, 2 * radius), radius)


def _post(rng: np.random.Generator, origin: np.ndarray, rays: np.ndarray, back: float) -> Hits:
    """As tall as a room: its upper end is not seen."""
    return meet_cylinder(origin, rays, _place(rng, back, 12.0), rng.uniform(0.04, 0.3), 6.0)


_THINGS: tuple[Callable[..., Hits], ...] = (_box, _ball, _post)
_SHARES = (0.5, 0.25, 0.25)


def _shade(
    rng: np.random.Generator, hits: Hits, seen: np.ndarray, photograph: np.ndarray, sun: np.ndarray, size: int
) -> np.ndarray:
    """A photograph laid on a surface, so many pixels a metre, by a lamp's and the sun's light; [seen, 3]."""
    density = np.exp(rng.uniform(np.log(80), np.log(250)))
    offset = rng.uniform(0, 500, 2)
    colours = _look_up(photograph, hits.places[seen] * density + offset, density * hits.along[seen] / size)
    light = 0.6 + 0.45 * (hits.normals[seen] @ sun).clip(0)
    return colours * light[:, None] * rng.uniform(0.75, 1.2)


def _look_up(photograph: np.ndarray, places: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """The photograph, repeated in mirror images, at places [N, 2] in pixels, where a pixel of the scene covers so many.

    Of a smaller photograph where it covers several: else what is far would flicker.
    """
    levels = np.log2(footprint.clip(1)).round().astype(int).clip(0, 5)
    colours = np.zeros((len(places), 3), np.float32)
    smaller = photograph
    for level in range(6):
        here = levels == level
        if here.any():
            x, y = (_mirror(places[here, i] / 2**level, smaller.shape[1 - i]) for i in (0, 1))
            colours[here] = _sample(smaller, x, y)
        smaller = cv2.pyrDown(smaller)
    return colours


def _mirror(value: np.ndarray, length: int) -> np.ndarray:
    there = np.mod(value, 2 * (length - 1))
    return np.minimum(there, 2 * (length - 1) - there).astype(np.float32)


def _sample(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear; OpenCV takes maps whose sides are shorter than 32768."""
    count, rows = len(x), -(-len(x) // 4096)
    x, y = (np.pad(each, (0, rows * 4096 - count)).reshape(rows, 4096) for each in (x, y))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR).reshape(-1, 3)[:count].astype(np.float32)


def _develop(rng: np.random.Generator, image: np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
    """Haze, uneven exposure and noise; uint8."""
    haze = 1 - np.exp(-depth * rng.uniform(0, 0.03))
    image = image + haze[:, None] * (rng.uniform(120, 200, 3) - image)
    image = image.reshape(size, size, 3) + rng.normal(0, rng.uniform(1, 5), (size, size, 3))
    return image.clip(0, 255).astype(np.uint8)
