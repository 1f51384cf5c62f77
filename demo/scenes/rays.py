"""Where rays meet surfaces: planes, boxes, spheres and upright cylinders, all of them seen from outside."""

from dataclasses import dataclass

import numpy as np

NEAREST = 0.1
"""Metres, along the camera's axis: what is nearer is not seen."""


@dataclass(frozen=True)
class Hits:
    """Where rays [N, 3] from one point meet a surface.

    Attributes:
        along: how far along its ray, in units of the ray's length, [N]; infinite where it is missed.
        normals: of the surface, of unit length, [N, 3].
        places: metres on the surface, [N, 2], which a texture is laid on.
    """

    along: np.ndarray
    normals: np.ndarray
    places: np.ndarray


def meet_plane(origin: np.ndarray, rays: np.ndarray, axis: int, at: float) -> Hits:
    """The plane on which the coordinate `axis` has that value."""
    with np.errstate(divide='ignore', invalid='ignore'):
        along = (at - origin[axis]) / rays[:, axis]
    along = np.where(along > NEAREST, along, np.inf)
    points = origin + np.where(np.isfinite(along), along, 0)[:, None] * rays
    normals = np.zeros_like(rays)
    normals[:, axis] = np.sign(origin[axis] - at)
    return Hits(along, normals, np.delete(points, axis, axis=1))


def meet_box(origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, half: np.ndarray, turned: float) -> Hits:
    """A box of half sides `half`, turned about the upright axis by an angle."""
    turn = _turn(turned)
    start, within = (origin - centre) @ turn, rays @ turn
    with np.errstate(divide='ignore', invalid='ignore'):
        sides = np.sort(np.stack([(-half - start) / within, (half - start) / within]), axis=0)
    face = sides[0].argmax(1)
    near, far = sides[0].max(1), sides[1].min(1)
    along = np.where((near < far) & (near > NEAREST), near, np.inf)
    points = start + np.where(np.isfinite(along), along, 0)[:, None] * within
    rows = np.arange(len(rays))
    normals = np.zeros_like(rays)
    normals[rows, face] = -np.sign(within[rows, face])
    others = np.array([[2, 1], [0, 2], [0, 1]])[face]
    return Hits(along, normals @ turn.T, points[rows[:, None], others])


def meet_sphere(origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, radius: float) -> Hits:
    along, points = _meet_round(origin, rays, centre, radius, (0, 1, 2))
    normals = points / radius
    angles = np.arctan2(points[:, 0], -points[:, 2])
    return Hits(along, normals, np.stack([radius * angles, points[:, 1]], axis=1))


def meet_cylinder(origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, radius: float, half: float) -> Hits:
    """An upright cylinder of half height `half`; its ends are open, for none is seen from above."""
    along, points = _meet_round(origin, rays, centre, radius, (0, 2))
    along = np.where(np.abs(points[:, 1]) <= half, along, np.inf)
    normals = points * (1, 0, 1) / radius
    angles = np.arctan2(points[:, 0], -points[:, 2])
    return Hits(along, normals, np.stack([radius * angles, points[:, 1]], axis=1))


def _meet_round(
    origin: np.ndarray, rays: np.ndarray, centre: np.ndarray, radius: float, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The nearer solution of a quadratic equation, and the point from the centre."""
    start, within = (origin - centre)[list(axes)], rays[:, axes]
    a, b = (within**2).sum(1), within @ start
    root = b**2 - a * ((start**2).sum() - radius**2)
    along = (-b - np.sqrt(root.clip(0))) / a
    along = np.where((root > 0) & (along > NEAREST), along, np.inf)
    return along, origin - centre + np.where(np.isfinite(along), along, 0)[:, None] * rays


def _turn(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
