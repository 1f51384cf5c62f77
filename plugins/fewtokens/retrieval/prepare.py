"""Small copies of videos, so that training reads no more than it uses: few frames a second, of few pixels."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..video.sampling import candidate_frames
from .decode import VideoError, open_video

_AT_ONCE = 16
"""Frames of full size in memory."""


class PrepareVideo:
    """Writes a video's copy: H.264 in mp4, without sound.

    As CenterCLIP and CLIP4Clip prepare theirs: 3 frames a second with a short side of 224, the long side even. Pictures
    are upright, as players show them, and upright ones keep their shape, which the published command squashes. A video
    with fewer frames a second keeps them.

    Args:
        rate: frames per second.
        side: short side in pixels.
        decoder: see `open_video`.

    Raises:
        ValueError: rate or side is out of range.
    """

    def __init__(self, rate: float = 3.0, side: int = 224, decoder: str = 'auto') -> None:
        if not rate > 0:
            raise ValueError(f'rate={rate} must be frames per second')
        if side < 16 or side % 2:
            raise ValueError(f'side={side} must be an even number of pixels, 16 or more')
        self.rate, self.side, self.decoder = rate, side, decoder

    def __call__(self, source: str | os.PathLike, target: str | os.PathLike) -> int:
        """Writes the copy of `source` as `target`, and says how many frames it has.

        Raises:
            VideoError: the video can't be read, or has no shape that a copy can have.
            OSError: the copy can't be written.
            ImportError: PyAV is missing.
        """
        video = open_video(source, self.decoder)
        indices = candidate_frames(len(video), video.fps, self.rate)
        import av

        with av.open(os.fspath(target), 'w', format='mp4') as container:
            rate = Fraction(min(self.rate, video.fps)).limit_denominator(1001)
            stream = container.add_stream('libx264', rate=rate)
            stream.pix_fmt = 'yuv420p'
            for start in range(0, len(indices), _AT_ONCE):
                frames = video.frames(indices[start : start + _AT_ONCE])
                if start == 0:
                    stream.width, stream.height = size = self._size(source, frames)
                for picture in frames:
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
                    container.mux(stream.encode(frame.reformat(*size, 'yuv420p', interpolation='BICUBIC')))
            container.mux(stream.encode())
        return len(indices)

    def _size(self, source: str | os.PathLike, frames: np.ndarray) -> tuple[int, int]:
        """Width and height of the copy."""
        height, width = frames.shape[1:3]
        long = self.side * max(height, width) // min(height, width) // 2 * 2
        if long > 16384:
            raise VideoError(f'{os.fspath(source)}: {width} x {height} pixels are too long a strip')
        return (long, self.side) if width >= height else (self.side, long)


class PrepareWithin:
    """`PrepareVideo` for videos of a folder, in the form of a pipeline's loader: for `search.decoding`.

    Args:
        prepare: what makes a copy.
        folder: of the videos.
        out: of the copies, which have the same names, but for the suffix, in the same folders.
        scratch: a folder on the disk of `out` for copies that are not yet whole.
    """

    def __init__(self, prepare: PrepareVideo, folder: Path, out: Path, scratch: Path) -> None:
        self.prepare, self.folder, self.out, self.scratch = prepare, folder, out, scratch

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Prepares `video_path`; `frames` is how many there are, or the error of a disk that can't be written."""
        source = Path(results['video_path'])
        target = copy_of(source.relative_to(self.folder), self.out)
        temporary = self.scratch / f'{os.getpid()}.mp4'
        try:
            frames = self.prepare(source, temporary)
            # The copy has its video's time: by that it is known to be of the video as it is.
            os.utime(temporary, ns=(time := source.stat().st_mtime_ns, time))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
        except OSError as error:
            if error.filename is not None and Path(os.fsdecode(error.filename)) == source:
                raise
            # No fault of the video: all others would fail as well.
            return dict(frames=error)
        return dict(frames=np.array(frames))


def copy_of(name: str | os.PathLike, out: Path) -> Path:
    """Where the copy of a video is, by its name within the folder."""
    return out / Path(name).with_suffix('.mp4')
