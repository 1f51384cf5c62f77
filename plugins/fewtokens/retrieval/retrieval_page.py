"""What the texts of a test set find: a page of frames, with the right video marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ..measure.files import shown, write_whole
from ..report.pages import frame_as_data_url, render_page
from .decode import VideoError, open_video
from .metrics import gather_embeddings

TEXTS, FOUND = 24, 5


@dataclass(frozen=True)
class Found:
    """A video, its place among all and its score; its middle frame as a data URL, or none where it can't be read."""

    name: str
    rank: int
    score: float
    right: bool
    image: str | None


@METRICS.register_module()
class RetrievalPage(BaseMetric):
    """Writes `index.html`: for some of the texts, evenly spread, the nearest videos and the right one. No metric.

    Args:
        out_dir: the page's folder.
    """

    default_prefix = ''

    def __init__(self, out_dir: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.out_dir = Path(out_dir)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            embeddings = (sample['video_embedding'].float().cpu(), sample['text_embeddings'].float().cpu())
            self.results.append((sample['video_id'], *embeddings, sample['video_path'], sample['texts']))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        texts, videos, owners = gather_embeddings([result[:3] for result in results])
        paths = list({result[0]: result[3] for result in results}.values())
        captions = [text for result in results for text in result[4]]
        chosen = torch.linspace(0, len(captions) - 1, min(TEXTS, len(captions))).long().unique().tolist()
        lines = [(captions[i], _nearest(texts[i].double() @ videos.double().T, int(owners[i]), paths)) for i in chosen]
        told = dict(lines=lines, texts=len(captions), videos=len(paths), columns=FOUND + 1)
        page = render_page(Path(__file__).parent / 'retrieval_page.html', **told)
        path = self.out_dir / 'index.html'
        write_whole(path, lambda temporary: temporary.write_bytes(page.encode('utf-8', 'replace')))
        print_log(f'what {len(lines)} of {len(captions)} texts find: {shown(path)}', logger='current')
        return {}


def _nearest(scores: torch.Tensor, right: int, paths: list[str]) -> list[Found]:
    """The nearest videos of a text, and the right one behind them if it isn't among them."""
    order = scores.argsort(descending=True, stable=True).tolist()
    places = [*range(min(FOUND, len(order)))]
    place = order.index(right)
    return [
        Found(shown(Path(paths[i]).name), p + 1, scores[i].item(), i == right, _middle_frame(paths[i]))
        for p in [*places, *([place] if place not in places else [])]
        for i in [order[p]]
    ]


def _middle_frame(path: str) -> str | None:
    try:
        video = open_video(path)
        return frame_as_data_url(video.frames([len(video) // 2])[0])
    except VideoError:
        return None
