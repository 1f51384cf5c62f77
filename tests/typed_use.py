"""Code as a user writes it: mypy, not pytest, checks that the package's types allow it. Run by `make quality`."""

import torch
from torch import nn

import fewtokens
from fewtokens.video import SegmentClustering, VideoEncoder


def attach_each(model: nn.Module) -> int:
    reducers = (
        fewtokens.GradualUpdate(after=(0, 3, 6, 9), keep=0.35),
        fewtokens.GradualUpdate((1, 4), 0.5, spread=False),
        fewtokens.SharedUpdate(after=3, grid=24),
        fewtokens.SharedUpdate(3, (24, 32), spread=False),
        fewtokens.SharedUpdate(after=(3, 6), grid=(20, 14)),
        fewtokens.SharedUpdate((3, 6), ((27, 36), (20, 27))),
        fewtokens.Hourglass(after=10, grid=28, temperature=50.0),
        fewtokens.Hourglass(10, (28, 28), until='backbone'),
        fewtokens.AvgPool(3, 24),
        fewtokens.ToMe((1, 2, 3), 190),
        fewtokens.AvgPool(3, (24, 32)),
        fewtokens.BipartiteMerge((1, 2, 3), 190),
        fewtokens.BipartiteMerge(after=1, tokens=190),
    )
    passes = 0
    for reducer in reducers:
        with fewtokens.attach(model, reducer) as attachment:
            model(torch.zeros(1, 3, 64, 64))
            print(attachment.summary())
            passes += attachment.passes
    text: str = fewtokens.supported(model)
    print(text)
    fewtokens.use_sdpa(model).remove()
    return passes


def encode(clip: nn.Module, video: torch.Tensor) -> torch.Tensor:
    encoder = VideoEncoder(clip, SegmentClustering(segments=6, clusters=49, size_bias=True), after=6)
    with encoder.using(None) as plain:
        return plain(video)
