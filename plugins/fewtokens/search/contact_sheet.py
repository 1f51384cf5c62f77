"""A page of what a search found: frames of each video, with its score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..measure.files import shown, write_whole
from ..report.pages import frame_as_data_url, render_page
from ..retrieval.decode import VideoError, open_video
from .index import Hit

FRAMES = 6


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
    strips = [_strip(hit, folder) for hit in hits]
    told = dict(query=shown(query), strips=strips, folder=shown(folder), total=total, columns=FRAMES)
    content = render_page(Path(__file__).parent / 'contact_sheet.html', **told).encode()
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _strip(hit: Hit, folder: Path) -> Strip:
    name = shown(hit.path.relative_to(folder).as_posix())
    try:
        reader = open_video(hit.path)
        # The middles of equal parts: first and last frames are often black.
        indices = np.unique((2 * np.arange(FRAMES) + 1) * len(reader) // (2 * FRAMES))
        frames = [
            (index / reader.fps, frame_as_data_url(frame))
            for index, frame in zip(indices.tolist(), reader.frames(indices))
        ]
    except VideoError as error:
        return Strip(hit, name, [], problem=str(error))
    return Strip(hit, name, frames, len(reader) / reader.fps)
