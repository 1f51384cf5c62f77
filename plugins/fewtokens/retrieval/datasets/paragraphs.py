"""Data sets whose captions are of moments, joined to a paragraph for the whole video."""

import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.registry import DATASETS

from .base import Captions, RetrievalDataset
from .files import check_entries, group, read_json


@DATASETS.register_module()
class ActivityNet(RetrievalDataset):
    """ActivityNet Captions.

    'test' is the official val_1, as in published results. No other split has public captions of its own, so 'val' is
    held out of the training videos: those whose id has a CRC-32 that is a multiple of 20. 'trainval' has both.
    """

    SPLITS = ('train', 'val', 'trainval', 'test')
    VIDEOS = 'Activity_Videos'
    SOURCE = (
        'captions are in https://cs.stanford.edu/people/ranjaykrishna/densevid/captions.zip, videos at '
        'http://activity-net.org/download.html; put the json files into data_root, the videos into its Activity_Videos'
    )

    def annotations(self) -> Sequence[Path]:
        return [self.file('val_1.json' if self.split == 'test' else 'train.json')]

    def captions(self) -> Captions:
        (path,) = self.annotations()
        entries = read_json(path, dict)
        check_entries(path, entries.items(), sentences=list)
        paragraphs = {video: [_paragraph(entry['sentences'])] for video, entry in entries.items()}
        if self.split in ('test', 'trainval'):
            return paragraphs
        held_out = self.split == 'val'
        return {video: texts for video, texts in paragraphs.items() if _is_held_out(video) == held_out}

    def other_names(self, video_ids: Iterable[str]) -> dict[str, str]:
        return {video: video.removeprefix('v_') for video in video_ids}


@DATASETS.register_module()
class DiDeMo(RetrievalDataset):
    """DiDeMo. Its descriptions are of the first 30 seconds of a video."""

    VIDEOS = 'DiDeMo_Videos'
    SOURCE = (
        'https://github.com/LisaAnne/LocalizingMoments has train_data.json, val_data.json and test_data.json in data/, '
        'and says where the videos are; put the json files into data_root, the videos into its DiDeMo_Videos'
    )
    MAX_SECONDS = 30.0

    def annotations(self) -> Sequence[Path]:
        return [self.file(f'{self.split}_data.json')]

    def captions(self) -> Captions:
        (path,) = self.annotations()
        moments = read_json(path, list)
        check_entries(path, enumerate(moments), video=str, description=str)
        grouped = group((moment['video'], moment['description']) for moment in moments)
        return {video: [_paragraph(texts)] for video, texts in grouped.items()}

    def other_names(self, video_ids: Iterable[str]) -> dict[str, str]:
        # Videos are named with the suffix that they had at first.
        return {video: os.path.splitext(video)[0] for video in video_ids}


def _paragraph(sentences: Iterable[str]) -> str:
    return ' '.join(sentence.strip() for sentence in sentences)


def _is_held_out(video: str) -> bool:
    return zlib.crc32(video.encode()) % 20 == 0
