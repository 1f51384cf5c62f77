"""A video index on disk: what was indexed, by which model, and the embeddings.

    manifest.json     the model, the videos in the order of the embeddings, and which generation of files is current
    generation-N/     embeddings.npy [n, D] float32, and index.faiss, built from them
    shards/           videos encoded by an indexing that has not ended yet

A new generation is written whole before the manifest names it, so a reader sees the old index or the new one.
"""

import json
import shutil
import uuid
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..measure.files import write_whole
from .faiss_index import build_index, read_index, write_index

FORMAT = 1


class VideoFile(NamedTuple):
    """A video as it was when it was indexed. A file of another size or time is another video."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """What an index holds.

    Args:
        model: what is needed to build the model again, and to tell it from others.
        folder: of the videos; their names are relative to it.
        files: the videos in the order of the embeddings, sorted by name.
        unreadable: videos that could not be decoded, each with the reason.
        generation: number of the files with the embeddings; 0 before the first.
        dimensions: of an embedding.
    """

    model: dict[str, Any]
    folder: str
    files: list[VideoFile] = field(default_factory=list)
    unreadable: list[tuple[VideoFile, str]] = field(default_factory=list)
    generation: int = 0
    dimensions: int = 0


class Encoded(NamedTuple):
    """The outcome for one video: an embedding [D] or the reason why there is none."""

    file: VideoFile
    embedding: np.ndarray | None
    problem: str | None = None


def read_manifest(folder: Path) -> Manifest | None:
    """An index's manifest, or None where there is no index.

    Raises:
        ValueError: it is damaged, or of another version of fewtokens.
    """
    path = folder / 'manifest.json'
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        version = content.pop('format')
        if version == FORMAT:
            content['files'] = [VideoFile(*row) for row in content['files']]
            content['unreadable'] = [(VideoFile(*row), reason) for row, reason in content['unreadable']]
            return Manifest(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, path, error) from error
    raise ValueError(f'{path} has format {version}, this version of fewtokens reads {FORMAT}: index the videos again')


def write_manifest(folder: Path, manifest: Manifest) -> None:
    content = json.dumps(dict(format=FORMAT, **asdict(manifest)))
    write_whole(folder / 'manifest.json', lambda path: path.write_text(content, encoding='utf-8'))


def write_generation(folder: Path, manifest: Manifest, embeddings: np.ndarray) -> None:
    """Writes embeddings [n, D] and their FAISS index, then a manifest that names them, then removes older files.

    Raises:
        OSError: a file, which is named, can't be written; the old ones are still there, and no new one is.
    """
    index, new = build_index(embeddings), _generation(folder, manifest)
    shutil.rmtree(new, ignore_errors=True)  # of an indexing that was interrupted before it wrote its manifest
    try:
        write_whole(new / 'embeddings.npy', lambda path: _save(path, embeddings))
        write_whole(new / 'index.faiss', lambda path: write_index(index, path))
        write_manifest(folder, manifest)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for old in folder.glob('generation-*'):
        if old != new:
            shutil.rmtree(old, ignore_errors=True)


def _save(path: Path, array: np.ndarray) -> None:
    """As numpy's `save`, whose error does not say what stopped it, such as a full disk."""
    with path.open('wb') as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def read_embeddings(folder: Path, manifest: Manifest) -> np.ndarray:
    """The embeddings [n, D] of an index; those of one that has no generation yet are empty.

    Raises:
        ValueError: the file is missing or damaged.
    """
    if manifest.generation == 0:
        return np.zeros((0, 0), np.float32)
    path = _generation(folder, manifest) / 'embeddings.npy'
    try:
        embeddings = np.load(path, allow_pickle=False)
        if embeddings.shape != (len(manifest.files), manifest.dimensions) or embeddings.dtype != np.float32:
            raise ValueError(f'{embeddings.shape} {embeddings.dtype} for {len(manifest.files)} videos')
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, path, error) from error
    return embeddings


def read_faiss(folder: Path, manifest: Manifest) -> Any:
    """The FAISS index of a manifest's generation.

    Raises:
        FileNotFoundError: there is none (a newer generation may have taken its place).
        ValueError: the file is damaged.
    """
    path = _generation(folder, manifest) / 'index.faiss'
    mend = 'index the videos again: it is made anew from the stored embeddings'
    if not path.is_file():
        raise FileNotFoundError(f'there is no {path}; {mend}')
    try:
        index = read_index(path)
    except RuntimeError as error:
        raise ValueError(f'{path} is damaged; {mend}') from error
    if (index.ntotal, index.d) != (len(manifest.files), manifest.dimensions):
        raise ValueError(f'{path} has {index.ntotal} vectors for {len(manifest.files)} videos; {mend}')
    return index


def write_shard(folder: Path, encoded: list[Encoded]) -> None:
    """Commits what has been encoded: it is not encoded again, whatever happens later."""
    rows = [(*one.file, one.problem) for one in encoded]
    good = [one.embedding for one in encoded if one.embedding is not None]
    embeddings = np.stack(good).astype(np.float32) if good else np.zeros((0, 0), np.float32)
    texts = np.array(json.dumps(rows))
    shard = folder / 'shards' / f'{uuid.uuid4().hex}.npz'
    write_whole(shard, lambda path: np.savez(path, rows=texts, embeddings=embeddings))


def read_shards(folder: Path) -> dict[VideoFile, Encoded]:
    """What an indexing that has not ended has encoded so far. A damaged shard is removed: its videos come again."""
    found = {}
    for path in sorted((folder / 'shards').glob('[!.]*.npz')):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                rows, embeddings = json.loads(str(arrays['rows'])), iter(arrays['embeddings'])
            for *row, problem in rows:
                file = VideoFile(*row)
                found[file] = Encoded(file, None if problem else next(embeddings), problem)
        except (OSError, ValueError, KeyError, EOFError, TypeError, StopIteration, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    return found


def remove_shards(folder: Path) -> None:
    shutil.rmtree(folder / 'shards', ignore_errors=True)


def _generation(folder: Path, manifest: Manifest) -> Path:
    return folder / f'generation-{manifest.generation}'


def _damaged(folder: Path, path: Path, error: Exception) -> ValueError:
    reason = str(error).partition('\n')[0][:200] or type(error).__name__
    return ValueError(f'{path} is damaged ({reason}): remove {str(folder)!r} and index the videos again')
