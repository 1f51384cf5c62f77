"""Two methods compared where they cost the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .accuracy import Accuracy, bootstrap_difference
from .variants import Variant


@dataclass(frozen=True)
class Comparison:
    """A SharedUpdate row against the Hourglass row nearest in cost: points of the headline metric, with an interval."""

    ours: str
    theirs: str
    macs_ratio: float
    ours_loss: float
    theirs_loss: float
    difference: float
    interval: tuple[float, float] | None


def compare_at_equal_cost(
    rows: list[dict[str, Any]], variants: list[Variant], accuracies: dict[str, Accuracy]
) -> list[Comparison]:
    """Each SharedUpdate row against the Hourglass row whose MACs are nearest, where they are within a tenth."""
    headline = next(iter(rows[0]['differences']))
    kinds = {variant.name: type(variant.reducer).__name__ for variant in variants}
    theirs = [row for row in rows if kinds[row['name']] == 'Hourglass']
    found = []
    for ours in (row for row in rows if kinds[row['name']] == 'SharedUpdate'):
        near = min(theirs, key=lambda row: abs(np.log(row['macs'] / ours['macs'])), default=None)
        if near is None or abs(near['macs'] / ours['macs'] - 1) > 0.1:
            continue
        interval = bootstrap_difference(accuracies[ours['name']], accuracies[near['name']], headline)
        losses = -ours['differences'][headline], -near['differences'][headline]
        difference = losses[1] - losses[0]
        found.append(Comparison(ours['name'], near['name'], ours['macs'] / near['macs'], *losses, difference, interval))
    return found
