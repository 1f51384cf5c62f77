"""Figures kept in a file as they are measured, so that an interrupted run goes on where it was."""

import hashlib
import json
from pathlib import Path
from typing import Any


class Kept:
    """Figures by what they were measured of, one a line of a file.

    Args:
        path: of the file, which may be there from an earlier run; None keeps them in memory alone.
        of: what all of them depend on, such as the model's weights and the machine.
    """

    def __init__(self, path: Path | None, *of: Any) -> None:
        self.path = path
        self._of = _hash(of)
        self.found = 0
        """How many figures were known from earlier runs and have been asked for."""
        self._figures: dict[str, Any] = {}
        self._earlier: set[str] = set()
        if path is not None and path.exists():
            for line in path.read_text(encoding='utf-8').splitlines():
                try:
                    key, value = json.loads(line)
                except ValueError:  # the run ended while it wrote
                    continue
                self._figures[key] = value
            self._earlier = set(self._figures)

    def get(self, *what: Any) -> Any:
        """The figure, None if it isn't known."""
        key = self._key(what)
        if key in self._earlier:
            self._earlier.discard(key)
            self.found += 1
        return self._figures.get(key)

    def put(self, value: Any, *what: Any) -> None:
        key = self._key(what)
        self._figures[key] = value
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, 'a', encoding='utf-8') as file:
            # The line end first: the last line may have been cut off.
            file.write(f'\n{json.dumps([key, value])}')

    def _key(self, what: tuple) -> str:
        return _hash([self._of, *what])


def _hash(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
