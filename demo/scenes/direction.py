"""Whether a model tells a clip from its reverse. A config names this module in `custom_imports`."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from .clips import MOTIONS
from .msrvtt import REVERSED


@METRICS.register_module()
class DirectionMetric(BaseMetric):
    """`direction`: percent of captions that are nearer to their clip than to its reverse. Chance, and ties, are 50.

    `direction_of_motion` and `order_of_events` are those of the captions that differ in the one or the other, where
    there are any. For clips of `tools/make_clips.py --kind order`, and ClipRetrieval's data samples with one text each.

    Raises:
        ValueError: a clip is without its reverse.
    """

    default_prefix = ''

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            video, (text,), (caption,) = sample['video_embedding'], sample['text_embeddings'], sample['texts']
            moves = any(caption.endswith(motion) for motion in MOTIONS)
            self.results.append((sample['video_id'], video.float().cpu(), text.float().cpu(), moves))

    def compute_metrics(self, results: list[tuple[str, torch.Tensor, torch.Tensor, bool]]) -> dict[str, float]:
        clips = {name: clip for name, *clip in results}
        pairs = [(name, name + REVERSED) for name in clips if not name.endswith(REVERSED)]
        lone = {name for pair in pairs for name in pair} ^ set(clips)
        if lone or not pairs:
            raise ValueError(f'{min(lone, default="the test set")!r} has no clip with its reverse')
        leads, moves = [], []
        for pair in pairs:
            for (video, text, moving), (other, _, _) in permutations(clips[name] for name in pair):
                leads.append(text @ (video - other))
                moves.append(moving)
        leads, moves = torch.stack(leads), torch.tensor(moves)
        # What rounding makes of equal embeddings is no lead.
        right = 100 * ((leads > 1e-6).double() + (leads.abs() <= 1e-6).double() / 2)
        parts = dict(direction=right, direction_of_motion=right[moves], order_of_events=right[~moves])
        return {name: part.mean().item() for name, part in parts.items() if len(part)}
