"""Videos of a folder through an encoder, a shard at a time."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..measure.progress import progress_bar
from ..retrieval.video_files import SUFFIXES, walk
from .decoding import TIME_LIMIT, Load, decode_videos
from .index_files import Encoded, VideoFile

SHARD = 64
"""Videos between two commits."""


def find_videos(folder: Path) -> list[VideoFile]:
    """The videos in a folder and the folders within, sorted by name; hidden ones are left out.

    A link to a folder or to a video counts as what it leads to. One that has a video's name and leads nowhere is a
    video that can't be read.

    Raises:
        FileNotFoundError: there is no folder, or no video in it.
        PermissionError: a folder can't be listed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(folder)!r}')
    found = []
    for parent, folders, names in walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith('.')]
        for name in names:
            path = Path(parent, name)
            dangling = path.is_symlink() and not path.exists()
            if path.suffix.lower() in SUFFIXES and not name.startswith('.') and (path.is_file() or dangling):
                status = path.lstat() if dangling else path.stat()
                found.append(VideoFile(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    if not found:
        raise FileNotFoundError(f'no videos in {str(folder)!r}: files ending in {", ".join(SUFFIXES)} are looked for')
    return sorted(found)


def _refuse(error: OSError) -> None:
    # A folder that can't be listed would look like one whose videos are gone.
    raise error


def encode_videos(
    folder: Path,
    files: Sequence[VideoFile],
    encode: Callable[[list[Tensor]], Tensor],
    load: Load,
    commit: Callable[[list[Encoded]], None],
    batch: int = 8,
    workers: int = 2,
    skip_unreadable: bool = False,
    progress: bool = True,
    time_limit: float = TIME_LIMIT,
) -> None:
    """Decodes videos in `workers` processes, encodes them, and commits what is done now and then.

    When something fails, what was encoded until then is committed first. A video that takes longer than the time limit,
    in seconds, or crashes the decoder, is one that can't be read. Without workers it is decoded in this process, and
    would hang or crash it.

    Raises:
        ValueError: a video can't be read and `skip_unreadable` is off, an embedding isn't finite, or memory ran out.
    """
    if not files:
        return
    videos = decode_videos([folder / file.name for file in files], load, workers, time_limit, 2 * batch * workers)
    done: list[Encoded] = []
    with closing(videos), progress_bar(len(files), 'encoding videos') if progress else nullcontext() as bar:
        try:
            for start in range(0, len(files), batch):
                decoded = list(islice(videos, batch))
                done += _encode(files[start : start + batch], decoded, encode, skip_unreadable)
                if len(done) >= SHARD:
                    commit(done)
                    done = []
                if bar:
                    bar.update(len(decoded))
        finally:
            if done:
                commit(done)


def _encode(
    files: Sequence[VideoFile], decoded: list[np.ndarray | str], encode: Callable[[list[Tensor]], Tensor], skip: bool
) -> list[Encoded]:
    """The embeddings of a batch; a video that could not be decoded comes as the reason."""
    problems = [item for item in decoded if isinstance(item, str)]
    if problems and not skip:
        raise ValueError(f'{problems[0]}; --skip-unreadable leaves such videos out and counts them')
    frames = [torch.from_numpy(item).permute(0, 3, 1, 2).contiguous() for item in decoded if not isinstance(item, str)]
    with torch.no_grad():
        embeddings = iter(encode(frames).float().cpu().numpy() if frames else ())
    encoded = []
    for file, item in zip(files, decoded):
        if isinstance(item, str):
            encoded.append(Encoded(file, None, item))
            continue
        embedding = next(embeddings)
        if not (abs(embedding) < float('inf')).all():
            raise ValueError(f'the embedding of {file.name!r} is not finite: the model or its weights are broken')
        encoded.append(Encoded(file, embedding))
    return encoded
