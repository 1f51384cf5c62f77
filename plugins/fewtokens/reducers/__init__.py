"""What to do to the tokens: one file a method."""

from .avg_pool import AvgPool
from .base import Reduced, Reducer
from .bipartite import BipartiteMerge
from .gradual_update import GradualUpdate
from .hourglass import Hourglass
from .shared_update import SharedUpdate
from .tome import ToMe

METHODS = (AvgPool, BipartiteMerge, GradualUpdate, Hourglass, SharedUpdate, ToMe)
"""All of the package."""

__all__ = ['AvgPool', 'BipartiteMerge', 'GradualUpdate', 'Hourglass', 'Reduced', 'Reducer', 'SharedUpdate', 'ToMe']
