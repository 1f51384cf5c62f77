"""fewtokens for OpenMMLab: import this before any other OpenMMLab package.

Importing it is the one place where fewtokens touches OpenMMLab: it stands in for mmcv's compiled ops and for
panopticapi where they are missing, lets configs inherit from `mmseg::…` and `fewtokens::…` names, and registers the
hook, the reducers and the CPU's mixed precision.
"""

from .compiled_ops import provide_compiled_ops
from .panoptic_api import provide_panoptic_api

provide_compiled_ops()
provide_panoptic_api()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

# The maintained packages are found by their import names; MMEngine still looks for "mmsegmentation".
MODULE2PACKAGE |= dict(mmseg='mmseg', fewtokens='fewtokens')

from .autocast import AutocastOptimWrapper  # noqa: E402
from .hook import FewTokensHook  # noqa: E402
from .registry import REDUCERS, parse_plugin  # noqa: E402

__all__ = ['REDUCERS', 'AutocastOptimWrapper', 'FewTokensHook', 'parse_plugin']
