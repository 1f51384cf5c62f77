"""Annotation files, read with errors that name what is wrong in which of them."""

import csv
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .base import Captions


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a csv file with a header.

    Raises:
        ValueError: a column is missing, or empty in a row.
    """
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                found = ', '.join(reader.fieldnames or ()) or 'nothing'
                raise ValueError(f'{path} has no column {missing[0]!r}: its first line must name it, and has {found}')
            rows = []
            for row in reader:
                empty = [name for name in columns if not (row[name] or '').strip()]
                if empty:
                    raise ValueError(f'{path}: line {reader.line_num} has no {empty[0]}')
                rows.append({name: row[name].strip() for name in columns})
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no csv file in UTF-8: {error}') from error
    if not rows:
        raise ValueError(f'{path} has no line but the first')
    return rows


def read_json(path: Path, kind: type[Any], fields: tuple[str, ...] = ()) -> Any:
    """A JSON file's content, of a kind (list or dict), with fields if it is a dict of a known form.

    Raises:
        ValueError: it is damaged or of another form.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is damaged, or no JSON file: {error}') from error
    if not isinstance(content, kind) or not content or any(name not in content for name in fields):
        wanted = f'a {kind.__name__}{f" with {chr(44).join(fields)}" if fields else ""}'
        raise ValueError(f'{path} is not {wanted}: is it the right file?')
    return content


def check_entries(path: Path, entries: Iterable[tuple[Any, Any]], **fields: type) -> None:
    """Raises a ValueError where one of a file's (number or name, entry) is no dict with the fields, of their types."""
    for key, entry in entries:
        for name, kind in fields.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
                raise ValueError(f'{path}: entry {key!r} has no {name!r} that is a {kind.__name__}')


def read_pickle(path: Path) -> Any:
    """A pickle file of plain lists, dicts and strings; nothing in it is run.

    Raises:
        ValueError: it is damaged, or has other objects.
    """
    try:
        with path.open('rb') as file:
            return _Plain(file, encoding='utf-8').load()
    except Exception as error:  # noqa: BLE001  a damaged pickle raises whatever it likes
        raise ValueError(f'{path} is damaged, or has more than lists, dicts and strings: {error}') from error


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f'{module}.{name} is refused')


def group(pairs: Iterable[tuple[str, str]]) -> Captions:
    """Texts of each video, in the order of the pairs (video, text)."""
    captions: Captions = {}
    for video, text in pairs:
        captions.setdefault(video, []).append(text)
    return captions
