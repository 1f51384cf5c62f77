"""One's own videos."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from .base import Captions, RetrievalDataset
from .files import group, read_csv


@DATASETS.register_module()
class VideoFolder(RetrievalDataset):
    """One's own videos, and a csv file with the header `video,caption` and a line for each caption.

    Args:
        ann_file: the csv file, in data_root: one for each split.
        data_prefix: the folder that names in the column `video` are relative to; data_root where left out.
    """

    VIDEOS = ''
    SOURCE = 'it is a csv file with the header video,caption; names of videos are relative to their folder'

    def __init__(self, data_root: str, ann_file: str = 'captions.csv', **others: Any) -> None:
        super().__init__(data_root, ann_file=ann_file, **others)

    def annotations(self) -> Sequence[Path]:
        return [Path(self.ann_file)]

    def captions(self) -> Captions:
        rows = read_csv(Path(self.ann_file), ('video', 'caption'))
        return group((row['video'], row['caption']) for row in rows)

    def locate(self, video_ids: Iterable[str]) -> dict[str, str]:
        paths = {video: self.folder / video for video in video_ids}
        return {video: str(path) for video, path in paths.items() if path.is_file()}
