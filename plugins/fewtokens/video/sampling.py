"""Which frames of a video a model sees."""

import numpy as np

WAYS = ('uniform', 'segment', 'random', 'tsn', 'head', 'tail')
DRAWN = ('random', 'tsn')
"""The ways that take others each time."""


def candidate_frames(n_frames: int, fps: float, rate: float | None = 1.0) -> np.ndarray:
    """The frames at a frame rate: frame round(i * fps / rate) for i = 0, 1, … up to the end of the video.

    Args:
        rate: frames per second; None, or more than the video has, takes every frame.

    Returns:
        Ascending int64 indices, at least one. CLIP4Clip's published extraction of one frame at each full second.
    """
    if n_frames < 1:
        raise ValueError(f'n_frames {n_frames} must be at least 1')
    if rate is None:
        return np.arange(n_frames)
    if not (rate > 0 and fps > 0):
        raise ValueError(f'rate {rate} and fps {fps} must be greater than 0')
    step = max(1.0, fps / rate)
    indices = np.floor(np.arange(int(n_frames / step) + 1) * step + 0.5).astype(np.int64)
    return indices[indices < n_frames]


def pick(n_candidates: int, frames: int = 12, how: str = 'uniform', random: np.random.Generator | None = None):
    """Which of a video's candidate frames to take; all of them where there are no more than `frames`.

    Args:
        how: 'uniform': evenly from the first to the last, rounded down (CLIP4Clip: slice position 2);
            'segment': the middle one of each of `frames` equal parts (CenterCLIP in evaluation);
            'random': one at random of each of these parts;
            'tsn': one at random of each part, where parts are of equal whole length and what remains at the end is
            never taken (CenterCLIP in training, after TSN): of fewer than twice as many, the first ones;
            'head', 'tail': the first, the last ones (CLIP4Clip: slice positions 0 and 1).
        random: source of what is drawn; numpy's global one, which MMEngine seeds in each worker process, if left out.

    Returns:
        Strictly ascending int64 positions among the candidates.
    """
    if n_candidates < 1 or frames < 1:
        raise ValueError(f'n_candidates {n_candidates} and frames {frames} must be at least 1')
    if how not in WAYS:
        raise ValueError(f'how {how!r} must be one of {", ".join(WAYS)}')
    if n_candidates <= frames or how == 'head':
        return np.arange(min(n_candidates, frames))
    if how == 'tail':
        return np.arange(n_candidates - frames, n_candidates)
    if how == 'uniform':
        return np.linspace(0, n_candidates - 1, frames).astype(np.int64)
    if how == 'segment':
        return ((2 * np.arange(frames) + 1) * n_candidates) // (2 * frames)
    edges = np.arange(frames + 1) * n_candidates // frames
    if how == 'tsn':
        edges = np.arange(frames + 1) * (n_candidates // frames)
    draw = (random or np.random).random(frames)
    return edges[:-1] + (draw * np.diff(edges)).astype(np.int64)


def sample_frames(
    n_frames: int,
    fps: float,
    frames: int = 12,
    how: str = 'uniform',
    rate: float | None = 1.0,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    """Numbers of the frames of a video that a model sees: candidates at a frame rate, then a choice of them.

    Args:
        n_frames: how many the video has.
        fps: its frames per second.
        frames: how many to take at most; a short video gives fewer, at least one.
        how: see `pick`.
        rate: candidates per second, see `candidate_frames`.

    Returns:
        Strictly ascending int64 indices.
    """
    candidates = candidate_frames(n_frames, fps, rate)
    return candidates[pick(len(candidates), frames, how, random)]
