"""A page of what a search found: frames of each video, with its score."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np

from ..measure.files import shown, write_whole
from .decode import VideoError, open_video
from .search import Hit

FRAMES = 6
HEIGHT = 132
"""Pixels of a frame, a little more than the page shows."""


@dataclass(frozen=True)
class Strip:
    """Frames of a video, each its second and a JPEG as a data URL, and the video's seconds; or why there are none."""

    hit: Hit
    name: str
    frames: list[tuple[float, str]]
    seconds: float = 0
    problem: str = ''

    def clock(self, seconds: float) -> str:
        """A time in the video as players show it, 0:47 or 1:02:03; with tenths where all of it is short."""
        if self.seconds < 10:
            return f'{seconds:.1f} s'
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


def write_contact_sheet(path: Path, query: str, hits: Sequence[Hit], folder: Path, total: int) -> None:
    """Writes one page, complete in itself: a line of frames for each hit. A file that is gone by now is named as such.

    Args:
        folder: the index's; names are shown relative to it.
        total: videos that were searched.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((Path(__file__).parent / 'contact_sheet.html').read_text(encoding='utf-8'))
    strips = [_strip(hit, folder) for hit in hits]
    html = page.render(query=shown(query), strips=strips, folder=shown(folder), total=total, columns=FRAMES)
    content = html.encode()
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _strip(hit: Hit, folder: Path) -> Strip:
    name = shown(hit.path.relative_to(folder).as_posix())
    try:
        reader = open_video(hit.path)
        # The middles of equal parts: first and last frames are often black.
        indices = np.unique((2 * np.arange(FRAMES) + 1) * len(reader) // (2 * FRAMES))
        frames = [
            (index / reader.fps, as_data_url(frame)) for index, frame in zip(indices.tolist(), reader.frames(indices))
        ]
    except VideoError as error:
        return Strip(hit, name, [], problem=str(error))
    return Strip(hit, name, frames, len(reader) / reader.fps)


def as_data_url(frame: np.ndarray) -> str:
    """A frame [H, W, 3] uint8, made small, as a JPEG in a page."""
    width = max(1, round(HEIGHT * frame.shape[1] / frame.shape[0]))
    small = cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
    jpeg = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return f'data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}'
