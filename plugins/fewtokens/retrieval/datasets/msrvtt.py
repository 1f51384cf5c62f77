"""MSR-VTT, whose published splits differ from the official one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.registry import DATASETS

from .base import Captions, RetrievalDataset
from .files import check_entries, group, read_csv, read_json


@DATASETS.register_module()
class MSRVTT(RetrievalDataset):
    """MSR-VTT: 10 000 videos with 20 captions each.

    Args:
        protocol: '1k-A' trains on 9000 videos, '7k' on 7010; both test on 1000 with one caption each. 'full' is the
            official split: 6513, 497 and 2990, with all captions.
        split: 'val' are the official validation videos. Those that '1k-A' and '7k' have among their training videos
            are not in 'train', but in 'trainval', on which the published models were trained.
    """

    SPLITS = ('train', 'val', 'trainval', 'test')
    VIDEOS = 'MSRVTT_Videos'
    SOURCE = (
        'annotations are in https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msrvtt_data.zip, videos in '
        'https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip; put the files into data_root, the videos '
        "into its MSRVTT_Videos, or name their folder with data_prefix=dict(video_path='…')"
    )
    DATA = 'MSRVTT_data.json'
    TEST = 'MSRVTT_JSFUSION_test.csv'
    TRAINING: ClassVar[dict[str, str | None]] = {
        '1k-A': 'MSRVTT_train.9k.csv',
        '7k': 'MSRVTT_train.7k.csv',
        'full': None,
    }

    def __init__(self, data_root: str, split: str = 'test', protocol: str = '1k-A', **others: Any) -> None:
        if protocol not in self.TRAINING:
            raise ValueError(f'protocol {protocol!r} of MSRVTT must be one of {", ".join(self.TRAINING)}')
        self.protocol = protocol
        super().__init__(data_root, split, **others)

    @property
    def _one_caption_each(self) -> bool:
        return self.split == 'test' and self.protocol != 'full'

    def annotations(self) -> Sequence[Path]:
        names = [self.TEST] if self._one_caption_each else [self.DATA, self.TRAINING[self.protocol]]
        return [self.file(name) for name in names if name]

    def captions(self) -> Captions:
        if self._one_caption_each:
            rows = read_csv(self.file(self.TEST), ('video_id', 'sentence'))
            return group((row['video_id'], row['sentence']) for row in rows)
        data = read_json(self.file(self.DATA), dict, ('videos', 'sentences'))
        check_entries(self.file(self.DATA), enumerate(data['videos']), video_id=str, split=str)
        check_entries(self.file(self.DATA), enumerate(data['sentences']), video_id=str, caption=str)
        chosen = self._chosen({video['video_id']: video['split'] for video in data['videos']})
        if not chosen:
            raise ValueError(f'{self.file(self.DATA)} has no video for the {self.split} split of {self.protocol}')
        return group((s['video_id'], s['caption']) for s in data['sentences'] if s['video_id'] in chosen)

    def _chosen(self, official: dict[str, str]) -> set[str]:
        """Ids of the split's videos, given the official split that each is in: train, validate or test."""
        validation = {video for video, part in official.items() if part == 'validate'}
        listed = self.TRAINING[self.protocol]
        if listed is None:
            training = {video for video, part in official.items() if part == 'train'} | validation
        else:
            rows = read_csv(self.file(listed), ('video_id',))
            training = {row['video_id'] for row in rows}
        parts = dict(train=training - validation, val=training & validation, trainval=training)
        return parts[self.split] if self.split in parts else set(official) - training
