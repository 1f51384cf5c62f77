"""An index of videos with a stand-in for model and decoder: a video is a text file, its embedding follows from it."""

import numpy as np
import torch

from fewtokens.retrieval.decode import VideoError

MODEL = dict(model=dict(type='Stub', width=8), weights='1234', checkpoint='a.pth')


class Load:
    def __call__(self, results):
        with open(results['video_path'], 'rb') as file:
            content = file.read()
        if content.startswith(b'broken'):
            raise VideoError(f'{results["video_path"]} is broken')
        return dict(frames=np.frombuffer(content[:1] * 12, np.uint8).reshape(1, 2, 2, 3).copy())


class Encode:
    """Counts what it encodes; `limit` stands for whatever interrupts an indexing."""

    def __init__(self, limit=None):
        self.seen, self.limit = 0, limit

    def __call__(self, videos):
        if self.limit is not None and self.seen + len(videos) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(videos)
        return torch.stack([embedding(int(video[0, 0, 0, 0])) for video in videos])


def embedding(value, dimensions=8):
    generator = torch.Generator().manual_seed(value)
    return torch.nn.functional.normalize(torch.randn(dimensions, generator=generator), dim=0)


def update(index, folder, encode=None, model=MODEL, **options):
    options = dict(batch=2, workers=0, progress=False) | options
    return index.update(folder, encode or Encode(), Load(), model, **options)


def summary(result):
    return result.added, result.changed, result.removed, result.total
