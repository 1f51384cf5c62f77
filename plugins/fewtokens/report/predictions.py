"""The page of a folder's predictions, each variant's beside the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..measure.files import write_whole
from .pages import render_page


@dataclass(frozen=True)
class Prediction:
    """One picture: the file of its overlays, and of each variant, in their order, milliseconds and if it reduced."""

    file: str
    milliseconds: list[float]
    reduced: list[bool]


def write_predictions_page(
    path: Path, names: Sequence[str], predictions: Sequence[Prediction], unreadable: Sequence[str]
) -> None:
    """Writes a page of pictures that lie beside it.

    Args:
        names: of the variants.
        unreadable: names of files that were left out.
    """
    told = dict(names=names, predictions=predictions, unreadable=unreadable)
    content = render_page(Path(__file__).parent / 'predictions.html', **told).encode()
    write_whole(path, lambda temporary: temporary.write_bytes(content))
