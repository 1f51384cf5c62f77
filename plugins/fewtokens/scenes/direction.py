"""Whether a model tells a clip from its reverse. A config names this module in `custom_imports`."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from .msrvtt import REVERSED


@METRICS.register_module()
class DirectionMetric(BaseMetric):
    """`direction`: percent of captions that are nearer to their clip than to its reverse. Chance, and ties, are 50.

    For clips of `tools/make_clips.py --kind order`, and ClipRetrieval's data samples, each with one text.

    Raises:
        ValueError: a clip is without its reverse.
    """

    default_prefix = ''

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            video, (text,) = sample['video_embedding'], sample['text_embeddings']
            self.results.append((sample['video_id'], video.float().cpu(), text.float().cpu()))

    def compute_metrics(self, results: list[tuple[str, torch.Tensor, torch.Tensor]]) -> dict[str, float]:
        clips = {name: (video, text) for name, video, text in results}
        pairs = [(name, name + REVERSED) for name in clips if not name.endswith(REVERSED)]
        lone = {name for pair in pairs for name in pair} ^ set(clips)
        if lone or not pairs:
            raise ValueError(f'{min(lone, default="the test set")!r} has no clip with its reverse')
        leads = torch.stack(
            [text @ (own - other) for pair in pairs for own, other, text in _both(*(clips[name] for name in pair))]
        )
        # What rounding makes of equal embeddings is no lead.
        right = (leads > 1e-6).double() + (leads.abs() <= 1e-6).double() / 2
        return dict(direction=100 * right.mean().item())


def _both(first: tuple, second: tuple) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """A clip's embedding, its reverse's, and its text's, for both of a pair."""
    return [(first[0], second[0], first[1]), (second[0], first[0], second[1])]
