"""Files that are either the old ones or whole new ones, and their names as text that can be shown."""

import errno
import json
import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_JOINERS = '\u200c\u200d'
"""Of letters and emoji: they steer no terminal, and names without them look wrong."""


class UnreadableError(ValueError):
    """A file cannot be read; the message names it and says why."""


def shown(text: Any) -> str:
    """Text that can be printed or put on a page, in one line, whatever a file is called.

    What steers a terminal or hides or reorders letters (control characters, line ends, marks of direction) is written
    as Python escapes it, and bytes that are no text as `?`.
    """
    return ''.join(map(_shown, str(text)))


def _shown(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind == 'Cs':
        return '?'
    return repr(letter)[1:-1] if kind in ('Cc', 'Cf', 'Zl', 'Zp') and letter not in _JOINERS else letter


def write_whole(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file under another name beside `path`, then moves it into place.

    If writing fails, whatever was at `path` is still there and nothing else is left.

    Raises:
        OSError: the file can't be written; it is named, also where what went wrong knew no name, as on a full disk.
    """
    with _written(Path(path), write) as temporary:
        os.replace(temporary, path)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes several files: none is moved into place before all are written whole."""
    with ExitStack() as stack:
        written = {
            path: stack.enter_context(_written(path, methodcaller('write_bytes', content)))
            for path, content in contents.items()
        }
        for path, temporary in written.items():
            os.replace(temporary, path)


@contextmanager
def naming_full_disk(*places: str | os.PathLike | None) -> Iterator[None]:
    """Names the folders and files that are written to, where others write and a full disk's error names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, ' or '.join(str(place) for place in places if place)) from error


def write_json(path: str | os.PathLike, content: Any) -> None:
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))


@contextmanager
def _written(path: Path, write: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary file beside `path` that `write` has filled; gone at the end, if it wasn't moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, name, whole = f'.{path.stem}-', None, False
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        os.close(handle)
        write(Path(name))
        os.chmod(name, 0o644)
        whole = True
        yield Path(name)
    except OSError as error:
        nameless = error.filename is None
        if whole if nameless else not Path(os.fsdecode(error.filename)).name.startswith(prefix):
            raise  # it is of another file
        if error.errno is None:
            raise OSError(f'{str(path)!r} cannot be written: {error}') from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)
