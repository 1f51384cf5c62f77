"""LSMDC."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mmengine.registry import DATASETS

from .base import Captions, RetrievalDataset
from .files import group


@DATASETS.register_module()
class LSMDC(RetrievalDataset):
    """LSMDC: 118 081 clips of 202 films, most with one caption. 'test' are the 1000 clips of the 2016 challenge."""

    VIDEOS = 'LSMDC_Videos'
    SOURCE = (
        'https://sites.google.com/site/describingmovies/download gives access; put the csv files into data_root, the '
        "clips into its LSMDC_Videos, in their films' folders or not"
    )
    FILES: ClassVar[dict[str, str]] = dict(
        train='LSMDC16_annos_training.csv',
        val='LSMDC16_annos_val.csv',
        test='LSMDC16_challenge_1000_publictect.csv',
    )

    def annotations(self) -> Sequence[Path]:
        return [self.file(self.FILES[self.split])]

    def captions(self) -> Captions:
        (path,) = self.annotations()
        rows = []
        for number, line in enumerate(path.read_text(encoding='utf-8', errors='replace').split('\n'), 1):
            columns = line.strip().split('\t')
            if len(columns) == 6:
                rows.append((columns[0], columns[5]))
            elif line.strip():
                raise ValueError(f'{path}: line {number} has {len(columns)} columns, not 6 with tabs between them')
        if not rows:
            raise ValueError(f'{path} is empty')
        return group(rows)
