"""Runs a tool, with its errors in one line."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import distributed

from ..measure.files import shown

EXTRAS = dict.fromkeys(('mmengine', 'mmcv', 'mmseg', 'mmdet', 'torchvision'), 'openmmlab')
EXTRAS |= dict.fromkeys(('open_clip', 'av', 'faiss', 'filelock'), 'video')
EXTRAS |= dict.fromkeys(('cv2', 'jinja2', 'matplotlib', 'numpy'), 'report')
EXTRAS |= dict(accelerate='huggingface', transformers='huggingface', decord='decord')
"""What brings a package that a tool needs."""

NOISE = {
    'mmseg': ('Default ``avg_non_ignore`` is False', 'The draw is False', '`reduce_zero_label` will be deprecated'),
    'mmengine': ('.* has been created, the method `get_instance` should not accept any other arguments',),
}
"""What packages warn of in every run, whatever its user does; by the package, how the warnings begin."""


def run(main: Callable[[], None]) -> None:
    """Runs a tool's main function; what a user can mend is one line, and exit status 2."""
    if hasattr(sys.stdout, 'reconfigure'):
        # As stderr is: a terminal may lack letters that a file's name has.
        sys.stdout.reconfigure(errors='backslashreplace')
    status = 0
    try:
        with quiet():
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


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves out `NOISE`, that a CUDA toolkit lies on a machine without a GPU, and each further try of a download."""
    told: set[str] = set()

    def of_this_run(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        again = text in told or text.startswith(('No CUDA runtime is found', 'Retrying in '))
        told.add(text)
        return not again

    loggers = [logging.getLogger(name) for name in ('torch.utils.cpp_extension', 'huggingface_hub.utils._http')]
    with warnings.catch_warnings():
        for package, beginnings in NOISE.items():
            for text in beginnings:
                warnings.filterwarnings('ignore', text, module=rf'{package}\.')
        for logger in loggers:
            logger.addFilter(of_this_run)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(of_this_run)


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
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    from ..openmmlab.distributed import leave

    leave()
