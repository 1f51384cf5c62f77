"""Frames of a video file, read by PyAV or decord."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..measure.files import UnreadableError, shown
from .orientation import IDENTITY, Matrix, display_matrix, is_upright, upright

DECODERS = ('auto', 'decord', 'pyav')
DEFAULT = 'pyav'
"""What 'auto' stands for: exact in every file that it reads, and maintained."""
# In other containers, such as MPEG-TS and AVI, decord's seeking ends at wrong frames.
_DECORD_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm')


class VideoError(UnreadableError):
    """A video file cannot be read; the message names it and says why."""


class Reader(Protocol):
    """An open video: `len(reader)` frames, as they lie in the file, at `fps` frames per second."""

    fps: float

    def __len__(self) -> int: ...

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames of these numbers as uint8 [T, H, W, 3], RGB, turned and mirrored as players show them."""


def open_video(path: str | os.PathLike, decoder: str = 'auto') -> Reader:
    """Opens a video file.

    Args:
        decoder: 'pyav', 'decord', which refuses files whose frames it would get wrong, or 'auto', the default one.

    Raises:
        VideoError: the file is missing, empty, damaged, or without a video stream or frames.
        ImportError: the decoder is not installed.
    """
    path = Path(path)
    if decoder not in DECODERS:
        raise ValueError(f'decoder {decoder!r} must be one of {", ".join(DECODERS)}')
    if not path.is_file():
        raise VideoError(f'{shown(path)}: {"is not a file" if path.exists() else "there is no such video"}')
    if path.stat().st_size == 0:
        raise VideoError(f'{shown(path)}: the file is empty')
    readers: dict[str, Callable[[Path], Reader]] = {'decord': _DecordReader, 'pyav': _PyAVReader}
    return readers[DEFAULT if decoder == 'auto' else decoder](path)


class _DecordReader:
    def __init__(self, path: Path):
        try:
            import decord
        except ImportError as error:
            raise ImportError('the decoder decord is missing: pip install "fewtokens[decord]"') from error
        if path.suffix.lower() not in _DECORD_SUFFIXES:
            raise VideoError(f"{shown(path)}: decord cannot seek exactly in this format; decoder='pyav' can")
        problem = _beyond_decord(path)
        if problem:
            raise VideoError(f"{shown(path)}: decord cannot {problem}; decoder='pyav' can")
        decord.logging.set_level(decord.logging.QUIET)
        self.path = path
        with _problems_of(path):
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if not len(self):
            raise VideoError(f'{shown(path)}: has no frames')
        self.fps = _valid_rate(self._reader.get_avg_fps())
        self.frames([0])  # fails where the codec is unknown

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        indices = _checked(indices, len(self))
        with _problems_of(self.path):
            return self._reader.get_batch(indices).asnumpy()


def _beyond_decord(path: Path) -> str | None:
    """What decord would do wrongly with a file, without an error; taken for nothing where PyAV is missing."""
    try:
        import av
    except ImportError:
        return None
    if not is_upright(_orientation(path)):
        return 'turn and mirror its pictures as players do'
    try:
        with av.open(str(path)) as container:
            if _has_open_groups(container.demux(container.streams.video[:1])):
                return 'seek exactly in its open groups of pictures'
    except (av.FFmpegError, OSError, ValueError):
        pass  # opening says what is wrong
    return None


def _orientation(path: Path) -> Matrix:
    """The display matrix of the first frame, which holds for all: a stream need not repeat it."""
    import av

    try:
        with av.open(str(path)) as container:
            return display_matrix(next(container.decode(video=0)))
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration):
        return IDENTITY  # decoding says what is wrong


def _has_open_groups(packets: Iterable[Any]) -> bool:
    """Whether frames that follow a key frame in the file are shown before it."""
    key = None
    for packet in packets:
        if packet.is_keyframe:
            key = packet.pts
        elif None not in (key, packet.pts) and packet.pts < key:
            return True
    return False


class _PyAVReader:
    """Keeps no file open between calls."""

    def __init__(self, path: Path):
        try:
            import av
        except ImportError as error:
            raise ImportError('the decoder PyAV is missing: pip install "fewtokens[video]"') from error
        self._open, self._reformatter = av.open, av.video.reformatter.VideoReformatter
        self.path = path
        with self._stream() as (container, stream):
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            times = [p.pts for p in packets]
            announced = stream.frames
            self.fps = _valid_rate(stream.average_rate or stream.guessed_rate)
            timeless = container.format.name == 'avi'
        if not packets:
            raise VideoError(f'{shown(path)}: has no frames')
        if len(packets) < announced or any(p.is_corrupt for p in packets):
            raise VideoError(
                f'{shown(path)}: is damaged or cut off, some of its {max(announced, len(packets))} frames are missing'
            )
        self._length, self._matrix = len(packets), _orientation(path)
        # Where times are missing or double, frames are counted from the start; AVI's are those of decoding.
        exact = not timeless and None not in times and len(set(times)) == len(times)
        self._times = sorted(times) if exact else None
        self._keyframes = sorted(p.pts for p in packets if p.is_keyframe) if exact else []

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        indices = _checked(indices, len(self))
        wanted = sorted(set(indices))
        pictures = self._decode(wanted, self._times) if self._times else {}
        if len(pictures) < len(wanted):  # seeking ended too late in the file
            pictures = self._decode(wanted, None)
        lost = [index for index in wanted if index not in pictures]
        if lost:
            raise VideoError(f'{shown(self.path)}: frame {lost[0]} of {len(self)} cannot be decoded')
        return np.stack([pictures[index] for index in indices])

    def _decode(self, wanted: list[int], times: list[Any] | None) -> dict[int, np.ndarray]:
        """Frames as far as they are found; times of all frames, to seek by."""
        pictures: dict[int, np.ndarray] = {}
        with self._stream() as (container, stream):
            numbered = self._numbered(container, stream)
            reformatter = self._reformatter()  # kept for all frames: making one takes longer than its work
            here = -1
            for index in wanted:
                if times and (keyframe := self._keyframe_before(times, index)) > max(here, 0):
                    container.seek(times[keyframe], stream=stream)
                    numbered = self._numbered(container, stream)
                for here, frame in numbered:
                    if here == index:
                        # A stream may change its size on the way.
                        size = dict(width=stream.codec_context.width, height=stream.codec_context.height)
                        frame = reformatter.reformat(frame, format='rgb24', **size)
                        pictures[index] = upright(frame, self._matrix)
                    if here >= index:
                        break
        return pictures

    def _keyframe_before(self, times: list[Any], index: int) -> int:
        """The number of the last frame up to this one that decoding can start from."""
        known = np.searchsorted(self._keyframes, times[index], side='right')
        return int(np.searchsorted(times, self._keyframes[known - 1])) if known else 0

    def _numbered(self, container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
        if self._times is None:
            yield from enumerate(container.decode(stream))
            return
        numbers = {time: number for number, time in enumerate(self._times)}
        for frame in container.decode(stream):
            if frame.pts in numbers:
                yield numbers[frame.pts], frame

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        with _problems_of(self.path), self._open(str(self.path)) as container:
            if not container.streams.video:
                raise VideoError(f'{shown(self.path)}: has no video stream')
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            yield container, stream


def _checked(indices: Sequence[int] | np.ndarray, length: int) -> list[int]:
    indices = [int(index) for index in indices]
    wrong = [index for index in indices if not 0 <= index < length]
    if wrong or not indices:
        raise IndexError(f'frame {wrong[0]} of a video of {length} frames' if wrong else 'no frame was asked for')
    return indices


def _valid_rate(rate: Any) -> float:
    """Frames per second; 1 where the file doesn't say."""
    return float(rate) if rate and np.isfinite(float(rate)) and rate > 0 else 1.0


@contextmanager
def _problems_of(path: Path) -> Iterator[None]:
    """Errors of a decoder, which may be of any kind, as a VideoError."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:
        text = str(error).strip()
        if 'video stream' in text:
            raise VideoError(f'{shown(path)}: has no video stream') from error
        reason = getattr(error, 'strerror', None) or text.partition('\n')[0].rpartition('] ')[2]
        raise VideoError(f'{shown(path)}: cannot be decoded: damaged, or not a video ({shown(reason)})') from error
