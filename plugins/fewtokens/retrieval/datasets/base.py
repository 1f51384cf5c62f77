"""What the data sets of videos with captions share."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dataset import BaseDataset

from ..video_files import SUFFIXES, walk

Captions = dict[str, list[str]]
"""Texts of each video, by its id."""


class RetrievalDataset(BaseDataset):
    """Videos and their texts: samples with `video_path`, `video_id` and `texts`, a list of str.

    A video whose file is missing keeps its place: the tools name it, or leave it out and count it.

    Args:
        data_root: folder of the annotation files.
        split: 'train', 'val', which never is a part of 'test', or 'test'.
        pairs: a sample is a video with one of its texts, for training; else a video with all of them.
        data_prefix: `dict(video_path=…)`, the folder of the videos, which may lie in folders within it.
        others: pipeline and more, see MMEngine's BaseDataset.

    Raises:
        FileNotFoundError: there is no annotation file, or not one of the videos; says where to get them.
        ValueError: an annotation file is damaged, or there is no such split.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ('train', 'val', 'test')
    VIDEOS: ClassVar[str]
    """Where the videos are, unless `data_prefix` says otherwise."""
    SOURCE: ClassVar[str]
    """Where to get the data, and where to put it."""
    MAX_SECONDS: ClassVar[float | None] = None
    """How much of a video was described, where it isn't all of it."""

    def __init__(
        self, data_root: str, split: str = 'test', pairs: bool = False, data_prefix: dict | None = None, **others: Any
    ) -> None:
        if split not in self.SPLITS:
            raise ValueError(f'split {split!r} of {type(self).__name__} must be one of {", ".join(self.SPLITS)}')
        self.split, self.pairs = split, pairs
        super().__init__(data_root=str(data_root), data_prefix=data_prefix or dict(video_path=self.VIDEOS), **others)

    def annotations(self) -> Sequence[Path]:
        """The annotation files that the split needs."""
        raise NotImplementedError

    def captions(self) -> Captions:
        """Reads them."""
        raise NotImplementedError

    def other_names(self, video_ids: Iterable[str]) -> dict[str, str]:
        """What a video's file may be called instead of its id."""
        return {}

    @property
    def folder(self) -> Path:
        """Of the videos."""
        return Path(self.data_prefix['video_path'])

    def file(self, name: str) -> Path:
        """A file in `data_root`."""
        return Path(self.data_root, name)

    def check_files(self) -> None:
        """Raises a FileNotFoundError where an annotation file or the videos' folder is missing."""
        missing = [path for path in self.annotations() if not path.is_file()]
        missing += [] if self.folder.is_dir() else [self.folder]
        if missing:
            raise FileNotFoundError(f'{type(self).__name__} needs {str(missing[0])!r}, which is missing: {self.SOURCE}')

    def load_data_list(self) -> list[dict[str, Any]]:
        self.check_files()
        captions = self.captions()
        paths = self.locate(captions)
        if not paths:
            raise FileNotFoundError(
                f'{str(self.folder)!r} has none of the {len(captions)} videos of the {self.split} split of '
                f'{type(self).__name__}: {self.SOURCE}'
            )
        extent = {} if self.MAX_SECONDS is None else dict(max_seconds=self.MAX_SECONDS)
        samples = []
        for video_id, texts in captions.items():
            texts = [text.strip() for text in texts if text.strip()]
            path = paths.get(video_id) or str(self.folder / with_suffix(video_id))
            for some in [[text] for text in texts] if self.pairs else [texts]:
                samples.append(dict(video_id=video_id, video_path=path, texts=some, **extent))
        return samples

    def locate(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Paths of those videos that are there."""
        others = self.other_names(video_ids)
        files = find_files(self.folder)
        found = {video: files.get(video) or files.get(others.get(video, video)) for video in video_ids}
        return {video: path for video, path in found.items() if path}


def find_files(folder: Path) -> dict[str, str]:
    """Paths of the videos in a folder and the folders within, by their names, with and without suffix."""
    files: dict[str, str] = {}
    for parent, _, names in walk(folder):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES and not name.startswith('.'):
                for key in (stem, name):
                    files.setdefault(key, os.path.join(parent, name))
    return files


def with_suffix(name: str) -> str:
    return name if name.lower().endswith(SUFFIXES) else f'{name}.mp4'
