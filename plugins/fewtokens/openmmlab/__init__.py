"""fewtokens for OpenMMLab: import this before any other OpenMMLab package.

Importing it is the one place where fewtokens touches OpenMMLab: it stands in for mmcv's compiled ops where mmcv has
none, lets configs inherit from `mmseg::…` names, and registers the hook, the reducers and the CPU's mixed precision.
"""

from .compiled_ops import provide_compiled_ops

provide_compiled_ops()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

# The maintained packages are found by their import names; MMEngine still looks for "mmsegmentation".
MODULE2PACKAGE['mmseg'] = 'mmseg'

from .autocast import AutocastOptimWrapper  # noqa: E402
from .hook import FewTokensHook  # noqa: E402
from .registry import REDUCERS, parse_plugin  # noqa: E402

__all__ = ['REDUCERS', 'AutocastOptimWrapper', 'FewTokensHook', 'parse_plugin']
