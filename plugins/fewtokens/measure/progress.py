"""MMEngine's progress bar, as all tools show it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.utils import ProgressBar


@contextmanager
def progress_bar(count: int) -> Iterator[ProgressBar]:
    """A bar on stderr whose line ends whatever happens: the message of an error gets a line of its own."""
    bar = ProgressBar(count, file=sys.stderr)
    try:
        yield bar
    finally:
        print(file=sys.stderr)
