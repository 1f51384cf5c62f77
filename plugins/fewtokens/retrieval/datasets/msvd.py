"""MSVD."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmengine.registry import DATASETS

from .base import Captions, RetrievalDataset
from .files import read_pickle


@DATASETS.register_module()
class MSVD(RetrievalDataset):
    """MSVD: 1970 videos of YouTube with about 40 captions each, all of which are asked for in a test.

    Videos are called by their YouTube ids, or as `youtube_mapping.txt` in `data_root` says (`ID vid1`).
    """

    VIDEOS = 'MSVD_Videos'
    SOURCE = (
        'lists and captions are in https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msvd_data.zip, videos '
        'at https://www.cs.utexas.edu/users/ml/clamp/videoDescription/ (YouTubeClips.tar); put the files into '
        "data_root, the videos into its MSVD_Videos, or name their folder with data_prefix=dict(video_path='…')"
    )

    def annotations(self) -> Sequence[Path]:
        return [self.file(f'{self.split}_list.txt'), self.file('raw-captions.pkl')]

    def captions(self) -> Captions:
        listed, path = self.annotations()
        captions = read_pickle(path)
        ids = listed.read_text(encoding='utf-8').split()
        if not ids:
            raise ValueError(f'{listed} names no video')
        unknown = [video for video in ids if video not in captions]
        if unknown:
            raise ValueError(f'{path} has no captions of {unknown[0]!r}, which is in {listed}')
        # Each caption is a list of words.
        return {video: [' '.join(words) for words in captions[video]] for video in ids}

    def other_names(self, video_ids: Iterable[str]) -> dict[str, str]:
        path = self.file('youtube_mapping.txt')
        lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
        return dict(line.split()[:2] for line in lines if len(line.split()) > 1)
