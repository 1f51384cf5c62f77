"""A picture of the tokens that a clustering keeps: a row for each segment, its frames side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor

from ..video.encoder import VideoEncoder
from ..video.frames import group_segments
from ..video.segments import SegmentClustering

DIMMED = 0.3
"""Brightness of what is not kept."""
INK, MARK, LINE, GAP = (30, 30, 30), (255, 210, 0), 22, 6


@dataclass(frozen=True)
class Medoids:
    """Tokens that a clustering keeps of one video."""

    segments: list[list[int]]
    """Frames of each segment."""
    kept: np.ndarray
    """[T, rows, columns] bool, of each frame's patches."""


@torch.no_grad()
def find_medoids(encoder: VideoEncoder, video: Tensor) -> Medoids:
    """Encodes one video, [T, 3, H, W] normalised, and finds the medoid tokens of its segments.

    Raises:
        ValueError: the encoder does not cluster once by 'kmedoids' or 'spectral', or the video has too few tokens.
    """
    clustering = encoder.clustering
    if not isinstance(clustering, SegmentClustering) or clustering.algorithm not in ('kmedoids', 'spectral'):
        raise ValueError(
            f"{clustering} has no medoids: one clustering with algorithm 'kmedoids' or 'spectral' is needed"
        )
    seen: list[Tensor] = []
    hook = clustering.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[2], args[3])))
    try:
        encoder(video[None])
    finally:
        hook.remove()
    tokens, prefix, grid = seen[0]
    patches = tokens[0, :, prefix:]
    kept = np.zeros(patches.shape[:2], bool)
    segments: dict[int, list[int]] = {}
    whole = torch.ones(1, len(patches), dtype=torch.bool)
    for places, members in group_segments(whole, cast(int, clustering.segments)):
        together = patches[members].flatten(1, 2)
        for place, frames, medoids in zip(places.tolist(), members, _choose(clustering, together, members, grid)):
            segments[place] = frames.tolist()
            kept[frames[medoids.cpu() // patches.shape[1]], medoids.cpu() % patches.shape[1]] = True
    return Medoids([segments[place] for place in sorted(segments)], kept.reshape(len(kept), *grid))


def _choose(clustering: SegmentClustering, patches: Tensor, frames: Tensor, grid: tuple[int, int]) -> Tensor:
    if patches.shape[1] <= clustering.clusters:
        raise ValueError(
            f'segments of {frames.shape[1]} frames have {patches.shape[1]} tokens, all of which {clustering} keeps: '
            'take more frames, fewer segments or fewer clusters'
        )
    return clustering.medoids(patches, frames.shape[1], grid)[0]


def draw_medoids(frames: np.ndarray, medoids: Medoids, times: Sequence[float] | np.ndarray, title: str) -> np.ndarray:
    """Draws a row of frames for each segment: kept tokens bright and framed, the others dark.

    Args:
        frames: [T, H, W, 3] uint8, as the encoder saw them.
        times: second of each frame.
        title: stands above.

    Returns:
        [height, width, 3] uint8.
    """
    rows = [_segment(number, members, frames, medoids.kept, times) for number, members in enumerate(medoids.segments)]
    width = max(_text_width(title) + 2 * GAP, *(row.shape[1] for row in rows))
    rows = [_line(title, width), *rows]
    return np.concatenate(
        [
            cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))
            for row in rows
        ]
    )


def _segment(
    number: int, members: list[int], frames: np.ndarray, kept: np.ndarray, times: Sequence[float] | np.ndarray
) -> np.ndarray:
    if not members:  # a video with fewer frames than segments
        return np.full((0, 1, 3), 255, np.uint8)
    pictures = [np.pad(_mark(frames[i], kept[i]), ((0, GAP), (GAP, 0), (0, 0)), constant_values=255) for i in members]
    row = np.concatenate(pictures, axis=1)
    span = f'{times[members[0]]:.1f} s' + (f' to {times[members[-1]]:.1f} s' if len(members) > 1 else '')
    text = f'segment {number + 1}, {span}: {int(kept[members].sum())} of {kept[members].size} tokens'
    width = max(row.shape[1], _text_width(text) + 2 * GAP)
    row = np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([_line(text, width), row])


def _mark(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """A frame whose kept patches are bright, each in a thin frame."""
    height, width = (side // count for side, count in zip(frame.shape, kept.shape))
    mask = kept.repeat(height, axis=0).repeat(width, axis=1)
    dark = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * DIMMED
    drawn = np.where(mask[..., None], frame, dark.astype(np.uint8))
    for row, column in zip(*kept.nonzero()):
        corner = (int(column) * width, int(row) * height)
        cv2.rectangle(drawn, corner, (corner[0] + width - 1, corner[1] + height - 1), MARK, 1)
    return drawn


def _line(text: str, width: int) -> np.ndarray:
    line = np.full((LINE, width, 3), 255, np.uint8)
    cv2.putText(line, text, (GAP, LINE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return line


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
