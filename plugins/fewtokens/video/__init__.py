"""Text-video retrieval with CLIP: fewer tokens by clustering segments of frames."""

from .encoder import VideoEncoder
from .metrics import retrieval_metrics
from .segments import SegmentClustering
from .temporal import SeqTransf

__all__ = ['SegmentClustering', 'SeqTransf', 'VideoEncoder', 'retrieval_metrics']
