"""Which files in a folder are videos, and how folders are gone through."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

SUFFIXES = ('.3gp', '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ogv', '.webm', '.wmv')


def walk(folder: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, with folders in the order of their names, and links to folders followed.

    Each folder comes once, however many links lead to it, also those that it is in: under its own name where that is in
    `folder`.
    """
    seen: set[str] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0), onerror=onerror):
            folders.sort()
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            yield parent, folders, sorted(names)
            waiting += [path for name in folders if os.path.islink(path := os.path.join(parent, name))]
