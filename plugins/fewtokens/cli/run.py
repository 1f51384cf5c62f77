"""Runs a tool, with its errors in one line."""

import sys
from collections.abc import Callable

from ..measure.files import shown
from ..openmmlab.config import config_mistake
from ..openmmlab.distributed import leave


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
        text = str(error) if mendable else config_mistake(error)
        if text is None:
            raise
        if 'in DataLoader worker' in text:
            text = text.strip().rpartition('\n')[2].partition(': ')[2]  # below the worker's traceback
        print(f'error: {shown(text)}', file=sys.stderr)
        status = 2
    leave()  # not sooner: the error has held what main used
    if status:
        sys.exit(status)
