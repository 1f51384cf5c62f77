"""What a few texts of a test set find by each row, for the trade-off report of a model that finds videos."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from torch import Tensor

from ..measure.accuracy import Accuracy
from ..measure.files import shown
from ..report.pages import frame_as_data_url
from ..report.tradeoff import Answer, Found, Query


def found_by_rows(dataset: BaseDataset, accuracies: Mapping[str, Accuracy], names: Mapping[str, str]) -> list[Query]:
    """What each row finds for the texts that its metric kept; nothing where it keeps none.

    Args:
        dataset: samples with `video_id`, `video_path` and `texts`, in the order in which the rows were evaluated.
        accuracies: by the rows' names.
        names: of the rows to show, and as what.
    """
    examples = {name: accuracies[name].examples for name in names}
    if not all(examples.values()):
        return []
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    captions = [text for info in infos for text in info['texts']]
    # A video may be several samples, each with some of its texts.
    first = {info['video_id']: index for index, info in reversed(list(enumerate(infos)))}
    samples = [first[name] for name in dict.fromkeys(info['video_id'] for info in infos)]
    frames: dict[int, str] = {}

    def find(video: int, score: float, owner: int) -> Found:
        sample = samples[video]
        if video not in frames:
            frames[video] = frame_as_data_url(_middle(dataset[sample]['inputs']))
        return Found(shown(Path(infos[sample]['video_path']).name), score, video == owner, frames[video])

    queries = []
    for number, text in enumerate(next(iter(examples.values()))['texts'].tolist()):
        lines = []
        for name, found in examples.items():
            owner, place = int(found['owners'][number]), int(found['places'][number])
            nearest = zip(found['videos'][number].tolist(), found['scores'][number].tolist())
            lines.append(Answer(names[name], place, [find(video, score, owner) for video, score in nearest]))
        queries.append(Query(shown(captions[text]), lines))
    return queries


def _middle(clip: Tensor) -> np.ndarray:
    """The frame [H, W, 3] in the middle of a clip [T, 3, H, W]."""
    return clip[len(clip) // 2].permute(1, 2, 0).numpy()
