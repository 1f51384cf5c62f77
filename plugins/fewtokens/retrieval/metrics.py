"""The retrieval metrics of a test set, for MMEngine's evaluator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import Tensor

from ..measure.resampling import Recalls
from ..video.metrics import Ranks, metrics_of, rank_both_directions

EXAMPLES, NEAREST = 4, 5
"""Texts whose videos a report shows, and how many of those."""


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """`retrieval_metrics` of a test set. `R@1`, text to video, is the headline.

    The model's data samples have `video_id`, `video_embedding` [D] and `text_embeddings` [n, D], of unit length.
    Samples of one video are put together. The similarity matrix is never whole in memory.

    Args:
        dual_softmax: temperature of the `dsl/…` metrics; none where left out.
        chunk: how many rows of the similarity are compared at a time.

    Attributes:
        statistics: once computed, what intervals of `R@1` and `v2t/R@1` are drawn from.
        examples: once computed, what a few texts find, see `_examples`.

    Raises:
        ValueError: embeddings are missing or don't fit each other.
    """

    default_prefix = ''

    def __init__(self, dual_softmax: float | None = None, chunk: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dual_softmax = dual_softmax
        self.chunk = chunk
        self.statistics: dict[str, Recalls] = {}
        self.examples: dict[str, np.ndarray] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if 'video_embedding' not in sample or 'text_embeddings' not in sample:
                raise ValueError(
                    f'sample {sample.get("video_id")!r} has no video_embedding and text_embeddings: RetrievalMetric '
                    'is for models such as ClipRetrieval'
                )
            video, texts = sample['video_embedding'], sample['text_embeddings']
            if video.ndim != 1 or texts.ndim != 2 or len(video) != texts.shape[1]:
                raise ValueError(
                    f'sample {sample.get("video_id")!r}: video_embedding {tuple(video.shape)} and text_embeddings '
                    f'{tuple(texts.shape)} must be [D] and [n, D]'
                )
            self.results.append((sample['video_id'], video.float().cpu(), texts.float().cpu()))

    def compute_metrics(self, results: list[tuple[str, Tensor, Tensor]]) -> dict[str, float]:
        texts, videos, owners = gather_embeddings(results)
        # Products in float64, compared in float32: equal pairs stay equal, whatever the chunks.
        texts, videos = texts.double(), videos.double()
        ranks = rank_both_directions(
            lambda part: (texts[part] @ videos.T).float(),
            lambda part: (videos[part] @ texts.T).float(),
            owners,
            len(videos),
            self.dual_softmax,
            self.chunk,
        )
        self.statistics = _recalls_by_video(ranks, owners, len(videos))
        self.examples = _examples(texts, videos, owners)
        return metrics_of(ranks)


def gather_embeddings(results: Sequence[tuple[str, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Puts (video id, video embedding, text embeddings) together by video.

    Returns:
        (texts [t, D], videos [v, D], owners [t] int64: the index of each text's video)
    """
    index: dict[str, int] = {}
    for name, _, _ in results:
        index.setdefault(name, len(index))
    videos = {name: video for name, video, _ in results}
    texts = [texts for _, _, texts in results]
    if not sum(map(len, texts)):
        raise ValueError(f'none of the {len(index)} videos has a caption: there is nothing to ask for')
    owners = torch.tensor([index[name] for name, _, texts in results for _ in texts])
    return torch.cat(texts), torch.stack([videos[name] for name in index]), owners


def _examples(texts: Tensor, videos: Tensor, owners: Tensor) -> dict[str, np.ndarray]:
    """What `EXAMPLES` of the texts find, evenly spread over the test set.

    Returns:
        `texts` [q]: which they are. `videos` [q, n]: the `NEAREST` videos of each, and `scores` [q, n], their cosines.
        `owners` [q]: the right video, and `places` [q]: its place, 1 where it is nearest.
    """
    chosen = torch.linspace(0, len(texts) - 1, min(EXAMPLES, len(texts))).long().unique()
    scores, nearest = (texts[chosen] @ videos.T).sort(dim=1, descending=True, stable=True)
    places = (nearest == owners[chosen, None]).int().argmax(dim=1) + 1
    few = dict(videos=nearest[:, :NEAREST], scores=scores[:, :NEAREST])
    found = dict(texts=chosen, **few, owners=owners[chosen], places=places)
    return {name: values.numpy() for name, values in found.items()}


def _recalls_by_video(ranks: dict[str, Ranks], owners: Tensor, videos: int) -> dict[str, Recalls]:
    """Statistics of R@1 in both directions: a video is asked for by each of its texts, and asks for them once."""
    texts = np.bincount(owners, minlength=videos).astype(np.float64)
    back = np.zeros(videos)
    back[texts > 0] = ranks['v2t/'].recall(1)
    forth = np.bincount(owners, ranks[''].recall(1), minlength=videos)
    return {'R@1': Recalls(forth, texts), 'v2t/R@1': Recalls(back, (texts > 0).astype(np.float64))}
