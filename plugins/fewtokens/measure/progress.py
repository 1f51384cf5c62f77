"""The progress bar that all tools show."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

WIDTH = 50
"""Columns of the bar, where the terminal has them."""
APART = 60.0
"""Seconds between lines where there is no terminal."""


class ProgressBar:
    """On a terminal a bar on stderr, rewritten with each step. Elsewhere a line at the end, and one a minute before."""

    def __init__(self, count: int, what: str) -> None:
        self.count, self.done, self.what = count, 0, what
        self._start = self._told = time.monotonic()
        self._terminal = sys.stderr.isatty()
        if self._terminal and len(what) > get_terminal_size().columns // 3:
            self.what = ''
            print(f'{what}:', file=sys.stderr)
        if self._terminal:
            self._draw()

    def update(self, steps: int = 1) -> None:
        self.done += steps
        if self._terminal:
            self._draw()
        elif time.monotonic() - self._told >= APART and self.done < self.count:
            self._tell()

    def end(self) -> None:
        """Ends the line, so that what comes next has one of its own."""
        if self._terminal:
            print(file=sys.stderr)
        else:
            self._tell()

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._start
        begin, text = f'{self.what} ['.lstrip(), f'] {self.done}/{self.count}, elapsed: {elapsed:.0f}s'
        if self.done:
            text += f', ETA: {elapsed * (self.count - self.done) / self.done:5.0f}s'
        width = max(2, min(WIDTH, get_terminal_size().columns - len(begin) - len(text) - 1))
        marks = width * self.done // max(1, self.count)
        print(f'\r{begin}{">" * marks:{width}}{text}', end='', file=sys.stderr, flush=True)

    def _tell(self) -> None:
        self._told = time.monotonic()
        what = f'{self.what}: ' if self.what else ''
        print(f'{what}{self.done} of {self.count} in {self._told - self._start:.0f} s', file=sys.stderr, flush=True)


@contextmanager
def progress_bar(count: int, what: str) -> Iterator[ProgressBar]:
    """A bar whose line ends whatever happens: the message of an error gets a line of its own.

    Warnings wait until then. `what` says what is going on.
    """
    bar, held = ProgressBar(count, what), []
    try:
        with warnings.catch_warnings(record=True) as held:
            yield bar
    finally:
        bar.end()
        for each in held:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno, registry=_TOLD)


_TOLD: dict = {}
"""Warnings that were shown after a bar: by the usual filters once each, not once a bar."""
