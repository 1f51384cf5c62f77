"""Runs a tool, with its errors in one line."""

import sys
from collections.abc import Callable

from ..measure.files import shown

EXTRAS = dict.fromkeys(('mmengine', 'mmcv', 'mmseg', 'mmdet', 'torchvision'), 'openmmlab')
EXTRAS |= dict.fromkeys(('open_clip', 'av', 'faiss', 'filelock'), 'video')
EXTRAS |= dict.fromkeys(('cv2', 'jinja2', 'matplotlib', 'numpy'), 'report')
EXTRAS |= dict(accelerate='huggingface', transformers='huggingface', decord='decord')
"""What brings a package that a tool needs."""


def run(main: Callable[[], None]) -> None:
    """Runs a tool's main function; what a user can mend is one line, and exit status 2."""
    if hasattr(sys.stdout, 'reconfigure'):
        # As stderr is: a terminal may lack letters that a file's name has.
        sys.stdout.reconfigure(errors='backslashreplace')
    status = 0
    try:
        main()
    except Exception as error:
        mendable = isinstance(error, (ValueError, OSError, NotImplementedError, ImportError))
        text = str(error) if mendable else _config_mistake(error)
        if text is None:
            raise
        if 'in DataLoader worker' in text:
            text = text.strip().rpartition('\n')[2].partition(': ')[2]  # below the worker's traceback
        print(f'error: {shown(text)}{_remedy(error)}', file=sys.stderr)
        status = 2
    _leave()  # not sooner: the error has held what main used
    if status:
        sys.exit(status)


def _remedy(error: Exception) -> str:
    """How to get a package that is missing."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = EXTRAS.get((missing or '').partition('.')[0])
    return f': pip install "fewtokens[{extra}]"' if extra else ''


def _config_mistake(error: Exception) -> str | None:
    if sys.modules.get('mmengine') is None:
        return None
    from ..openmmlab.config import config_mistake

    return config_mistake(error)


def _leave() -> None:
    if sys.modules.get('mmengine') is None:
        return
    from ..openmmlab.distributed import leave

    leave()
