"""Text-video retrieval with CLIP: fewer tokens by clustering segments of frames."""

from typing import Any

from .encoder import VideoEncoder
from .segments import SegmentClustering
from .temporal import SeqTransf

__all__ = ['SegmentClustering', 'SeqTransf', 'VideoEncoder', 'retrieval_metrics']


def __getattr__(name: str) -> Any:
    # The metrics' module needs mmengine, the rest torch alone.
    if name == 'retrieval_metrics':
        from .metrics import retrieval_metrics

        return retrieval_metrics
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
