"""From a video's path to what the model's preprocessor takes, in MMEngine's data pipelines."""

import hashlib
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ..measure.files import shown, write_whole
from ..video.sampling import DRAWN, WAYS, candidate_frames, pick
from .decode import DECODERS, VideoError, open_video


@TRANSFORMS.register_module()
class LoadFrames:
    """Decodes frames of `video_path` into `frames`, uint8 [T, size, size, 3], T at most `frames`.

    The short side is resized and the middle cropped, as CLIP does it. Where the sample has `max_seconds`, no later
    frame is taken.

    Args:
        frames: how many at most; a short video gives fewer.
        how: which of the candidates, see `sampling.pick`.
        rate: candidates per second; None takes every frame as one.
        size: side of a frame in pixels.
        decoder: see `open_video`.
        cache_dir: folder that keeps decoded frames, for any number of processes at once: those that are taken, or all
            candidates where they are drawn at random. 12 frames of 224 x 224 take 1.8 MB. A file that has changed is
            decoded again.

    Raises:
        ValueError: an option is out of range; as VideoError, when called: the video cannot be read.
    """

    def __init__(
        self,
        frames: int = 12,
        how: str = 'uniform',
        rate: float | None = 1.0,
        size: int = 224,
        decoder: str = 'auto',
        cache_dir: str | os.PathLike | None = None,
    ) -> None:
        if frames < 1 or size < 1:
            raise ValueError(f'frames={frames} and size={size} must be at least 1')
        if rate is not None and not rate > 0:
            raise ValueError(f'rate={rate} must be frames per second, or None for every frame')
        for name, value, known in (('how', how, WAYS), ('decoder', decoder, DECODERS)):
            if value not in known:
                raise ValueError(f'{name}={value!r} must be one of {", ".join(known)}')
        self.frames, self.how, self.rate, self.size, self.decoder = frames, how, rate, size, decoder
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        path, seconds = results['video_path'], results.get('max_seconds')
        frames = self._decode(path, seconds) if self.cache_dir is None else self._cached(path, seconds)
        if self._draws:
            frames = frames[pick(len(frames), self.frames, self.how)]
        return {**results, 'frames': frames}

    def __repr__(self) -> str:
        options = ('frames', 'how', 'rate', 'size', 'decoder', 'cache_dir')
        return f'LoadFrames({", ".join(f"{name}={getattr(self, name)!r}" for name in options)})'

    @property
    def _draws(self) -> bool:
        """Whether what is decoded is more than what is taken: what is kept must serve every draw."""
        return self.how in DRAWN and self.cache_dir is not None

    def _decode(self, path: str, seconds: float | None) -> np.ndarray:
        video = open_video(path, self.decoder)
        length = len(video) if seconds is None else max(1, min(len(video), int(seconds * video.fps)))
        indices = candidate_frames(length, video.fps, self.rate)
        if not self._draws:
            indices = indices[pick(len(indices), self.frames, self.how)]
        return resize(video.frames(indices), self.size)

    def _cached(self, path: str, seconds: float | None) -> np.ndarray:
        kept = self._place(path, seconds)
        frames = _read(kept, self.size)
        if frames is None:
            frames = self._decode(path, seconds)
            try:
                # A zip archive has a checksum of its content.
                write_whole(kept, lambda temporary: np.savez(temporary, frames=frames))
            except OSError as error:
                warnings.warn(f'decoded frames cannot be kept in {str(self.cache_dir)!r}: {error}', stacklevel=2)
        return frames

    def _place(self, path: str, seconds: float | None) -> Path:
        """Another one for each version of a video and each setting."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise VideoError(f'{shown(path)}: there is no such video ({error.strerror})') from error
        taken = None if self._draws else (self.frames, self.how)
        described = [os.path.abspath(path), status.st_size, status.st_mtime_ns, seconds, taken]
        described += [self.rate, self.size, self.decoder]
        name = hashlib.sha256(json.dumps(described).encode()).hexdigest()
        return cast(Path, self.cache_dir) / name[:2] / f'{name[2:]}.npz'


@TRANSFORMS.register_module()
class PackClip:
    """Turns a sample into `inputs`, uint8 [T, 3, H, W], and a data sample with `texts`, its id and path as metainfo."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        frames = torch.from_numpy(results['frames']).permute(0, 3, 1, 2).contiguous()
        metainfo = {key: results[key] for key in ('video_id', 'video_path') if key in results}
        return dict(
            inputs=frames, data_samples=BaseDataElement(metainfo=metainfo, texts=list(results.get('texts', ())))
        )

    def __repr__(self) -> str:
        return 'PackClip()'


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """Brings the short side of frames [T, H, W, 3] uint8 to `size`, bicubic, and crops the middle."""
    if frames.shape[1:3] == (size, size):
        return frames
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if min(frames.shape[1:3]) != size:
        images = F.resize(images, [size], InterpolationMode.BICUBIC, antialias=True)
    return F.center_crop(images, [size, size]).permute(0, 2, 3, 1).contiguous().numpy()


def _read(path: Path, size: int) -> np.ndarray | None:
    """Frames that were kept, or None where there are none, or damaged ones."""
    try:
        with np.load(path) as kept:
            frames = kept['frames']
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    fits = frames.dtype == np.uint8 and frames.ndim == 4 and len(frames) and frames.shape[1:] == (size, size, 3)
    return frames if fits else None
