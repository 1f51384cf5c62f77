"""Finds videos by a text: an index of a folder's video embeddings that follows what changes in the folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from .decoding import TIME_LIMIT, Load
from .index_files import (
    Manifest,
    VideoFile,
    read_embeddings,
    read_faiss,
    read_manifest,
    read_shards,
    remove_shards,
    write_generation,
    write_manifest,
    write_shard,
)
from .indexing import encode_videos, find_videos
from .model import read_saved, saved
from .processes import Processes


@dataclass(frozen=True)
class Hit:
    """A video that was found; `score` is the cosine between its embedding and the text's."""

    path: Path
    score: float


@dataclass(frozen=True)
class Update:
    """What an update changed: numbers of videos, and the unreadable ones with the reasons."""

    added: int
    changed: int
    removed: int
    total: int
    unreadable: dict[str, str]


class VideoIndex:
    """Embeddings of a folder's videos, on disk.

    What is on disk is read at the first `find`; updates by other processes are seen by a new object.

    Args:
        path: folder of the index; `update` makes it.

    Raises:
        ValueError: its manifest is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._manifest = read_manifest(self.path)
        self._faiss: Any = None

    @property
    def exists(self) -> bool:
        return self._manifest is not None

    @property
    def model(self) -> dict[str, Any]:
        """What the index was told of the model that wrote it."""
        return self._known().model

    @property
    def folder(self) -> Path:
        """Of the videos."""
        return Path(self._known().folder)

    def __len__(self) -> int:
        return len(self._known().files)

    def update(
        self,
        folder: Path,
        encode: Callable[[list[Tensor]], Tensor],
        load: Load,
        model: dict[str, Any],
        batch: int = 8,
        workers: int = 2,
        skip_unreadable: bool = False,
        progress: bool = True,
        time_limit: float = TIME_LIMIT,
    ) -> Update:
        """Encodes what is new or changed in a folder and forgets what is gone.

        Processes that were joined (see `processes.join`) share the work, and the first merges it: they need to see
        the same folders. Interrupted, an update goes on where it was when it is called again.

        Args:
            folder: videos, here and in the folders within.
            encode: from frames, a list of [T, 3, H, W] uint8, to embeddings [B, D] of unit length.
            load: from `dict(video_path=…)` to one with `frames` [T, H, W, 3] uint8, such as `LoadFrames`.
            model: describes the model, its weights and the loading, in JSON types. Updates with another are refused;
                only the place where the weights were read, its `checkpoint` or `model.clip.pretrained`, may differ.
            batch: videos that are encoded together.
            workers: processes that decode; 0 decodes in this one.
            skip_unreadable: remember videos that can't be read and leave them out until they change; else the first
                is an error, and remembered ones are tried again.
            time_limit: seconds after which a video that is still being decoded is one that can't be read; there is
                none without workers.

        Raises:
            FileNotFoundError: there is no folder, or no video in it.
            ValueError: a video can't be read, the index is of another model or folder or damaged, or another process
                is writing it.
        """
        processes = Processes()
        with ExitStack() as stack:

            def plan() -> tuple[list[VideoFile], list[VideoFile]]:
                videos = find_videos(folder)
                stack.enter_context(self._locked())
                self._claim(folder, model)
                return videos, self._to_do(videos, skip_unreadable)

            videos, to_do = processes.on_first(plan)
            share = to_do[processes.rank :: processes.number]
            encode_videos(
                *(folder, share, encode, load, lambda encoded: write_shard(self.path, encoded)),
                *(batch, workers, skip_unreadable, progress and processes.rank == 0, time_limit),
            )
            processes.wait()
            update = processes.on_first(lambda: self._merge(videos))
        self._manifest, self._faiss = read_manifest(self.path), None
        return update

    def find(self, embedding: Tensor | np.ndarray, k: int = 20) -> list[Hit]:
        """The k videos nearest to a text, best first; all, if there are fewer.

        Args:
            embedding: of the text, [D].

        Raises:
            FileNotFoundError, ValueError: see `load`, or `embedding` or `k` doesn't fit the index.
        """
        if k < 1:
            raise ValueError(f'k must be at least 1, not {k}')
        index = self.load()
        query = np.asarray(embedding, dtype=np.float32)
        if query.shape != (index.d,) or not np.isfinite(query).all():
            raise ValueError(f'a text embedding must be [{index.d}] and finite, not {list(query.shape)}')
        scores, ids = index.search(query[None] / max(float(np.linalg.norm(query)), 1e-12), min(k, index.ntotal))
        manifest = self._known()
        return [
            Hit(Path(manifest.folder, manifest.files[i].name), float(score))
            for score, i in zip(scores[0], ids[0])
            if i >= 0
        ]

    def load(self) -> Any:
        """Reads the FAISS index, if it hasn't been read; `find` does it by itself.

        Raises:
            FileNotFoundError, ValueError: there is no index, its first update has not ended, or it is damaged.
        """
        if self._faiss is None:
            if self._known().generation == 0:
                raise ValueError(f'the first indexing into {str(self.path)!r} has not ended: run it again, it goes on')
            try:
                self._faiss = read_faiss(self.path, self._known())
            except FileNotFoundError:
                # An update may have put a newer generation in its place since the manifest was read.
                self._manifest = read_manifest(self.path)
                self._faiss = read_faiss(self.path, self._known())
        return self._faiss

    def _known(self) -> Manifest:
        if self._manifest is None:
            raise FileNotFoundError(f'there is no video index in {str(self.path)!r}: make one with the index command')
        return self._manifest

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / '.lock').acquire(timeout=0):
                yield
        except Timeout as error:
            raise ValueError(f'another process is writing the index {str(self.path)!r}: wait for its end') from error

    def _claim(self, folder: Path, model: dict[str, Any]) -> None:
        """Puts the model and folder on record before work begins; refuses those of another index."""
        manifest = self._manifest = read_manifest(self.path)
        here = str(folder.resolve())
        if manifest is not None and (manifest.files or read_shards(self.path)):
            check_model(manifest.model, model, self.path)
            if manifest.folder != here and Path(manifest.folder).is_dir():
                raise ValueError(
                    f'{str(self.path)!r} is the index of {manifest.folder!r}: give {here!r} one of its own with --index'
                )
            self._manifest = replace(manifest, folder=here, model=model)
        else:
            self._manifest = Manifest(model, here)
        write_manifest(self.path, self._manifest)

    def _to_do(self, videos: list[VideoFile], skip_unreadable: bool) -> list[VideoFile]:
        manifest, encoded = self._known(), read_shards(self.path)
        known = set(manifest.files) | {file for file, one in encoded.items() if one.embedding is not None}
        if skip_unreadable:
            known |= set(encoded) | {file for file, _ in manifest.unreadable}
        return [file for file in videos if file not in known]

    def _merge(self, videos: list[VideoFile]) -> Update:
        """Old embeddings and new ones become a new generation, in the order of the videos."""
        old, shards = self._known(), read_shards(self.path)
        embeddings = dict(zip(old.files, read_embeddings(self.path, old)))
        embeddings |= {file: one.embedding for file, one in shards.items() if one.embedding is not None}
        problems = dict(old.unreadable) | {file: one.problem for file, one in shards.items() if one.problem}
        files = [file for file in videos if file in embeddings]
        unreadable = [(file, problems[file]) for file in videos if file not in embeddings and file in problems]
        lost = len(videos) - len(files) - len(unreadable)
        if lost:
            raise ValueError(
                f'{lost} videos were encoded by a process that does not share {str(self.path)!r} with the first one: '
                'put the index on a file system that all of them see'
            )
        if not files:
            raise ValueError(f'none of the {len(videos)} videos can be read; the first: {unreadable[0][1]}')
        if files != old.files or unreadable != old.unreadable or not self._is_whole(old):
            stacked = np.stack([embeddings[file] for file in files])
            number, dimensions = old.generation + 1, stacked.shape[1]
            new = replace(old, files=files, unreadable=unreadable, generation=number, dimensions=dimensions)
            write_generation(self.path, new, stacked)
        remove_shards(self.path)
        before, names = {file.name for file in old.files}, {file.name for file in files}
        fresh = set(files) - set(old.files)
        changed = sum(file.name in before for file in fresh)
        reasons = {file.name: reason for file, reason in unreadable}
        return Update(len(fresh) - changed, changed, len(before - names), len(files), reasons)

    def _is_whole(self, manifest: Manifest) -> bool:
        try:
            read_faiss(self.path, manifest)
        except (FileNotFoundError, ValueError):
            return False
        return True


_PLACES = ('checkpoint', 'model.clip.pretrained')


def check_model(known: dict[str, Any], given: dict[str, Any], path: Path) -> None:
    """Raises a ValueError that names the fields in which a model is not the one that wrote an index."""
    # Clusterings by what their texts mean: one setting has several.
    known, given = (_flat(saved(read_saved(model))) for model in (known, given))
    differ = [
        f'{name} is {given.get(name, "not set")}, was {known.get(name, "not set")}'
        for name in {**known, **given}
        if name not in _PLACES and known.get(name) != given.get(name)
    ]
    if differ:
        raise ValueError(
            f'the index {str(path)!r} was written by another model: {"; ".join(differ)}. '
            'Use that model, or index into another folder with --index'
        )


def _flat(tree: Any, prefix: str = '') -> dict[str, Any]:
    """The leaves of nested dicts, by dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f'{prefix}.{key}' if prefix else key)
    return leaves
