"""Files that are either the old ones or whole new ones."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a file under another name beside `path`, then moves it into place.

    If writing fails, whatever was at `path` is still there and nothing else is left.
    """
    with _written(Path(path), write) as temporary:
        os.replace(temporary, path)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes several files: none is moved into place before all are written whole."""
    with ExitStack() as stack:
        written = {
            path: stack.enter_context(_written(path, lambda temporary, c=content: temporary.write_bytes(c)))
            for path, content in contents.items()
        }
        for path, temporary in written.items():
            os.replace(temporary, path)


def write_json(path: str | os.PathLike, content: Any) -> None:
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))


@contextmanager
def _written(path: Path, write: Callable[[Path], None]):
    """A temporary file beside `path` that `write` has filled; gone at the end, if it wasn't moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}-', suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
