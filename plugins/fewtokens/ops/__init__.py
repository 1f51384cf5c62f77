"""Pure tensor functions: clustering, reconstruction, matching."""

from .attention import attend
from .hourglass import cluster_tokens, reconstruct_tokens
from .matching import match_pairs, merge_pairs
from .medoids import k_medoids
from .shared_update import merge_tokens
from .spectral import spectral_medoids
from .ward import merge_nearest

__all__ = [
    'attend',
    'cluster_tokens',
    'k_medoids',
    'match_pairs',
    'merge_nearest',
    'merge_pairs',
    'merge_tokens',
    'reconstruct_tokens',
    'spectral_medoids',
]
