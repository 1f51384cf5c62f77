"""Videos of a folder through an encoder, a shard at a time."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..measure.progress import progress_bar
from ..retrieval.decode import VideoError
from ..retrieval.video_files import SUFFIXES, walk
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
    load: Callable[[dict[str, Any]], dict[str, Any]],
    commit: Callable[[list[Encoded]], None],
    batch: int = 8,
    workers: int = 2,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> None:
    """Decodes videos in `workers` processes (0: in this one), encodes them, and commits what is done now and then.

    When something fails, what was encoded until then is committed first.

    Raises:
        ValueError: a video can't be read and `skip_unreadable` is off, or an embedding isn't finite.
    """
    if not files:
        return
    videos = DataLoader(_Videos(folder, files, load), batch, num_workers=workers, collate_fn=list)
    done: list[Encoded] = []
    seen = 0
    with progress_bar(len(files)) if progress else nullcontext() as bar:
        try:
            for decoded in videos:
                done += _encode(files[seen : seen + len(decoded)], decoded, encode, skip_unreadable)
                seen += len(decoded)
                if len(done) >= SHARD:
                    commit(done)
                    done = []
                if bar:
                    bar.update(len(decoded))
        except ImportError as error:
            # A decoding process adds its traceback.
            raise ImportError(str(error).strip().rpartition('\n')[2]) from error
        except RuntimeError as error:
            if 'DataLoader worker' not in str(error):
                raise
            raise ValueError(
                f'a decoding process died: too little memory, or {files[seen].name!r} or one of the next '
                f'{batch * max(1, workers) * 2} videos crashes the decoder ({error})'
            ) from error
        finally:
            if done:
                commit(done)


def _encode(
    files: Sequence[VideoFile], decoded: list[Tensor | str], encode: Callable[[list[Tensor]], Tensor], skip: bool
) -> list[Encoded]:
    """The embeddings of a batch; a video that could not be decoded comes as the reason."""
    problems = [item for item in decoded if isinstance(item, str)]
    if problems and not skip:
        raise ValueError(f'{problems[0]}; --skip-unreadable leaves such videos out and counts them')
    frames = [item for item in decoded if not isinstance(item, str)]
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


class _Videos(Dataset):
    """Frames [T, 3, H, W] uint8 of each video, or the reason why there are none."""

    def __init__(self, folder: Path, files: Sequence[VideoFile], load: Callable) -> None:
        self.folder, self.files, self.load = folder, files, load

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            frames = self.load(dict(video_path=str(self.folder / self.files[index].name)))['frames']
        except (VideoError, OSError) as error:
            return str(error)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
