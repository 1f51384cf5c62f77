"""Videos with captions, in the layouts in which their authors and CLIP4Clip (arXiv 2104.08860) give them out."""

from .base import RetrievalDataset
from .folder import VideoFolder
from .lsmdc import LSMDC
from .msrvtt import MSRVTT
from .msvd import MSVD
from .paragraphs import ActivityNet, DiDeMo

__all__ = ['LSMDC', 'MSRVTT', 'MSVD', 'ActivityNet', 'DiDeMo', 'RetrievalDataset', 'VideoFolder']
