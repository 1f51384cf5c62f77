"""Short clips in which things come and go, described before they are drawn: what a caption says can be checked."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .textures import CLASSES

SHAPES = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')
COLOURS = {
    'red': (220, 40, 40),
    'green': (30, 160, 60),
    'blue': (50, 80, 225),
    'yellow': (240, 215, 40),
    'white': (250, 250, 250),
    'purple': (150, 50, 180),
}
PHOTOGRAPHS = {'brick': 'brick', 'grassy': 'grass', 'flowery': 'flower', 'starry': 'hubble'}
"""Fills that are cut from a photograph, by the adjective."""
FILLS = (*COLOURS, *PHOTOGRAPHS)
RADII = {'small': 0.11, 'large': 0.19}
"""Half of a thing's height, as a share of the frame's side."""
BACKGROUNDS = ('gravel', 'coffee', 'chelsea', 'rocket', 'astronaut', 'china')
MOTIONS = {'to the right': (1, 0), 'to the left': (-1, 0), 'downwards': (0, 1), 'upwards': (0, -1)}
FRAMES = 24
"""Frames a clip."""
RATE = 8
"""Frames a second."""


@dataclass(frozen=True)
class Group:
    """Things that look the same. `places` are their centers in the event's first frame, x and y from 0 to 1."""

    shape: str
    fill: str
    size: str
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Event:
    """What is seen from frame `start` to the one before `stop`: a group, or one `relation` another."""

    groups: tuple[Group, ...]
    relation: str | None
    start: int
    stop: int
    shift: tuple[float, float]
    """How far everything moves from the event's first frame to its last."""
    motion: str | None = None
    """The direction's name, if a caption tells it."""


@dataclass(frozen=True)
class Clip:
    """Events over a still background; `seed` says where its photographs are cut."""

    background: str
    events: tuple[Event, ...]
    seed: int


def compose_clip(rng: np.random.Generator) -> Clip:
    """A clip of two to four events, one after the other: no frame shows them all."""
    count = int(rng.choice((2, 3, 4), p=(0.2, 0.5, 0.3)))
    # One relation at most: captions stay short.
    related = rng.integers(2 * count)
    parts = enumerate(_parts(rng, count))
    return _clip(rng, [_compose_event(rng, *part, _drift(rng, 0.12), number == related) for number, part in parts])


def compose_single(rng: np.random.Generator) -> Clip:
    """A clip of one event that lasts: what any frame shows, its caption says."""
    return _clip(rng, [_compose_event(rng, 0, FRAMES, _drift(rng, 0.3), rng.random() < 0.15)])


def compose_pair(rng: np.random.Generator) -> tuple[Clip, Clip]:
    """A clip and its reverse, whose frames are the same: only their order tells which is which.

    Either a thing moves across the clip, or two different events follow each other.
    """
    if rng.random() < 0.5:
        motion = str(rng.choice(list(MOTIONS)))
        shift = tuple(float(part) for part in rng.uniform(0.35, 0.5) * np.array(MOTIONS[motion]))
        clip = _clip(rng, [Event((_group(rng, 1, shift),), None, 0, FRAMES, shift, motion)])
    else:
        looks: set[tuple[str, str]] = set()
        while len(looks) < 2:  # events that differ: the caption's reverse says something else
            clip = _clip(rng, [_compose_event(rng, *part, (0.0, 0.0), False) for part in _parts(rng, 2)])
            looks = {(event.groups[0].shape, event.groups[0].fill) for event in clip.events}
    return clip, reverse_clip(clip)


def reverse_clip(clip: Clip) -> Clip:
    """The same clip, run backwards."""
    return replace(clip, events=tuple(_reverse(event) for event in reversed(clip.events)))


def render_clip(clip: Clip, textures: list[np.ndarray], size: int = 64) -> np.ndarray:
    """Draws the frames.

    Args:
        clip: what to draw; the same description gives the same frames.
        textures: photographs [H, W, 3] uint8 in the order of `CLASSES`.
        size: side of a frame in pixels.

    Returns:
        frames [FRAMES, size, size, 3] uint8, RGB.
    """
    rng = np.random.default_rng(clip.seed)
    frames = np.repeat(_background(rng, clip, textures, size)[None], FRAMES, axis=0)
    # By look, not by event: a clip and its reverse are cut alike.
    fills = {fill: _fill(rng, fill, textures, size) for fill in FILLS}
    for event in clip.events:
        for number in range(event.start, event.stop):
            for group in event.groups:
                mask, offset = draw_group(event, group, number, size)
                fill = np.roll(fills[group.fill], offset, axis=(0, 1))
                alpha = mask[..., None].astype(np.float32) / 255
                frames[number] = np.rint(frames[number] * (1 - alpha) + fill * alpha)
    return frames


def draw_group(event: Event, group: Group, number: int, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Where a group is in frame `number`: a mask [size, size] uint8, and rows and columns that it moved by."""
    time = (number - event.start) / max(event.stop - event.start - 1, 1)
    shift = np.array(event.shift) * time
    mask = np.zeros((size, size), np.uint8)
    for place in group.places:
        center = (np.array(place) + shift) * size
        contours = [
            np.rint((center + RADII[group.size] * size * part) * 16).astype(int) for part in _OUTLINES[group.shape]
        ]
        cv2.fillPoly(mask, contours, 255, cv2.LINE_AA, shift=4)
    column, row = np.rint((np.array(group.places[0]) + shift) * size).astype(int)
    return mask, (int(row), int(column))


def _clip(rng: np.random.Generator, events: list[Event]) -> Clip:
    return Clip(str(rng.choice(BACKGROUNDS)), tuple(events), int(rng.integers(2**31)))


def _parts(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """A stretch of two thirds at least of each of `count` parts of the clip."""
    bounds = np.linspace(0, FRAMES, count + 1).astype(int)
    parts = []
    for low, high in zip(bounds[:-1], bounds[1:]):
        length = rng.integers((high - low) * 2 // 3, high - low + 1)
        start = low + rng.integers(high - low - length + 1)
        parts.append((int(start), int(start + length)))
    return parts


def _drift(rng: np.random.Generator, most: float) -> tuple[float, float]:
    return tuple(float(part) for part in rng.uniform(-most, most, 2))


def _compose_event(rng: np.random.Generator, start: int, stop: int, shift, related: bool) -> Event:
    if not related:
        return Event((_group(rng, rng.integers(1, 4), shift),), None, start, stop, shift)
    relation = str(rng.choice(('above', 'to the left of')))
    axis = 1 if relation == 'above' else 0
    groups = tuple(_group(rng, 1, shift, axis, half) for half in (0, 1))
    return Event(groups, relation, start, stop, shift)


def _group(rng: np.random.Generator, count: int, shift, axis: int = 0, half: int | None = None) -> Group:
    """Things that stay inside the frame, or inside its first or second half along an axis, and apart."""
    size = str(rng.choice(list(RADII)))
    margin = RADII[size] + 0.02
    low, high = margin + np.maximum(0, -np.array(shift)), 1 - margin - np.maximum(0, shift)
    if half is not None:
        middle = (low[axis] + high[axis]) / 2
        (high if half == 0 else low)[axis] = middle - margin / 2 if half == 0 else middle + margin / 2
    # Of several arrangements the one whose things are farthest apart.
    places = rng.uniform(low, high, (64, count, 2))
    apart = np.abs(places[:, :, None] - places[:, None]).max(axis=3) + np.eye(count) * 2
    best = places[apart.min(axis=(1, 2)).argmax()]
    return Group(str(rng.choice(SHAPES)), str(rng.choice(FILLS)), size, tuple((float(x), float(y)) for x, y in best))


def _reverse(event: Event) -> Event:
    dx, dy = event.shift
    groups = tuple(replace(group, places=tuple((x + dx, y + dy) for x, y in group.places)) for group in event.groups)
    opposite = {tuple(-np.array(way)): name for name, way in MOTIONS.items()}
    motion = opposite[MOTIONS[event.motion]] if event.motion else None
    return Event(groups, event.relation, FRAMES - event.stop, FRAMES - event.start, (-dx, -dy), motion)


def _background(rng: np.random.Generator, clip: Clip, textures: list[np.ndarray], size: int) -> np.ndarray:
    """A photograph at a third of its contrast, so that things stand out from it."""
    crop = _cut(rng, textures[CLASSES.index(clip.background)], size, 3.0)
    return np.rint(crop * 0.35 + rng.uniform(40, 110)).astype(np.uint8)


def _fill(rng: np.random.Generator, fill: str, textures: list[np.ndarray], size: int) -> np.ndarray:
    """What things are made of, [size, size, 3]."""
    if fill in PHOTOGRAPHS:
        return _cut(rng, textures[CLASSES.index(PHOTOGRAPHS[fill])], size, 2.5)
    colour = np.array(COLOURS[fill]) * rng.uniform(0.85, 1.0)
    return np.broadcast_to(colour.astype(np.float32), (size, size, 3))


def _cut(rng: np.random.Generator, texture: np.ndarray, size: int, scale: float) -> np.ndarray:
    """A random square of the photograph, `scale` pixels of it a pixel of a 64-pixel frame."""
    side = min(int(64 * scale), *texture.shape[:2])
    top = rng.integers(texture.shape[0] - side + 1)
    left = rng.integers(texture.shape[1] - side + 1)
    square = np.ascontiguousarray(texture[top : top + side, left : left + side])
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=interpolation).astype(np.float32)


def _polygon(corners: int, *radii: float) -> np.ndarray:
    """Corners around the center, the first on top, at the radii in turn."""
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    radius = np.resize(radii, corners)[:, None]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius


_ARM = 0.36
_OUTLINES = {
    'circle': [_polygon(32, 1.0)],
    'square': [np.array([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)])],
    'triangle': [np.array([(0, -1), (1, 0.85), (-1, 0.85)])],
    'star': [_polygon(10, 1.1, 0.45)],
    'ring': [_polygon(32, 1.0), _polygon(32, 0.55)],
    'cross': [
        np.array(
            [(_ARM * a + b * c, _ARM * d + b * e) for a, b, c, d, e in (
                (-1, 1, 0, 0, -1), (1, 1, 0, 0, -1), (1, 1, 0, -1, 0), (0, 1, 1, -1, 0),
                (0, 1, 1, 1, 0), (1, 1, 0, 1, 0), (1, 1, 0, 0, 1), (-1, 1, 0, 0, 1),
                (-1, 1, 0, 1, 0), (0, 1, -1, 1, 0), (0, 1, -1, -1, 0), (-1, 1, 0, -1, 0),
            )]
        )
    ],
}  # fmt: skip
