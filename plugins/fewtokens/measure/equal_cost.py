"""Methods compared where they cost the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .accuracy import Accuracy, bootstrap_difference
from .rows import ReportRow
from .variants import Variant

NEAR = 0.1
"""How much more or less of the other's MACs a row may take to be compared with it."""


@dataclass(frozen=True)
class Comparison:
    """A row against the row of another method nearest in cost: points of the headline metric, with an interval."""

    ours: ReportRow
    theirs: ReportRow
    macs_ratio: float
    ours_loss: float
    theirs_loss: float
    difference: float
    interval: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), 'ours': self.ours.name, 'theirs': self.theirs.name}


def choose_pairs(variants: list[Variant], asked: Sequence[Sequence[str]] = ()) -> list[tuple[str, str]]:
    """Which kinds of rows are compared with which: those asked for, or each plugin's with each listed before it.

    Raises:
        ValueError: there is no row of a kind that is asked for.
    """
    kinds = list(dict.fromkeys(variant.kind for variant in variants))
    for kind in (kind for pair in asked for kind in pair):
        if kind not in kinds:
            raise ValueError(f'there is no row of {kind!r} to compare at equal cost; there are {", ".join(kinds)}')
    plugins = list(dict.fromkeys(variant.kind for variant in variants if variant.reducer is not None))
    each = [(kind, earlier) for place, kind in enumerate(plugins) for earlier in plugins[:place]]
    return [(ours, theirs) for ours, theirs in asked] or each


def compare_at_equal_cost(
    rows: list[ReportRow], pairs: Sequence[tuple[str, str]], accuracies: dict[str, Accuracy]
) -> list[Comparison]:
    """For each pair of kinds, each row of the first against that of the second whose MACs are nearest.

    Rows that have none within a tenth of their own are left out.
    """
    headline = next(iter(rows[0].differences))
    found = []
    for kind, other in pairs:
        for ours in (row for row in rows if row.kind == kind):
            others = [row for row in rows if row.kind == other and row is not ours]
            near = min(others, key=lambda row: abs(np.log(_ratio(row, ours))), default=None)
            if near is None or abs(_ratio(near, ours) - 1) > NEAR:
                continue
            interval = bootstrap_difference(accuracies[ours.name], accuracies[near.name], headline)
            # Where nothing is lost, a minus alone would say -0.00.
            loss, other_loss = (0 - row.differences[headline] for row in (ours, near))
            found.append(Comparison(ours, near, _ratio(ours, near), loss, other_loss, other_loss - loss, interval))
    return found


def _ratio(one: ReportRow, other: ReportRow) -> float:
    """Of the MACs of rows that can run."""
    return cast(int, one.macs) / cast(int, other.macs)
