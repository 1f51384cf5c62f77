"""The progress bar that all tools show."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

WIDTH = 50
"""Columns of the bar, where the terminal has them."""


class ProgressBar:
    """A bar on stderr, rewritten with each step."""

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0
        self._start = time.monotonic()
        self._show()

    def update(self, steps: int = 1) -> None:
        self.done += steps
        self._show()

    def _show(self) -> None:
        elapsed = time.monotonic() - self._start
        text = f'] {self.done}/{self.count}, elapsed: {elapsed:.0f}s'
        if self.done:
            text += f', ETA: {elapsed * (self.count - self.done) / self.done:5.0f}s'
        width = max(2, min(WIDTH, get_terminal_size().columns - len(text) - 2))
        marks = width * self.done // max(1, self.count)
        print(f'\r[{">" * marks:{width}}{text}', end='', file=sys.stderr, flush=True)


@contextmanager
def progress_bar(count: int) -> Iterator[ProgressBar]:
    """A bar whose line ends whatever happens: the message of an error gets a line of its own."""
    bar = ProgressBar(count)
    try:
        yield bar
    finally:
        print(file=sys.stderr)
