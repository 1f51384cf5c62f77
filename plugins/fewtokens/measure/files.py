"""Files that are either the old ones or whole new ones."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a file under another name beside `path`, then moves it into place.

    If writing fails, whatever was at `path` is still there and nothing else is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}-', suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike, content: Any) -> None:
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1)))
