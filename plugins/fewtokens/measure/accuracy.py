"""Accuracy of each variant, sample by sample where the metric allows it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .resampling import KINDS, Resampled, interval_of_difference


@dataclass(frozen=True)
class Accuracy:
    """Metrics in percent, the headline first.

    Attributes:
        statistics: what intervals are drawn from, by the metric's name, for metrics that have it.
        finite: whether every output was.
        examples: arrays that a metric keeps to show what was found, by name.
    """

    metrics: dict[str, float]
    statistics: dict[str, Resampled] = field(default_factory=dict)
    finite: bool = True
    examples: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Into a .npz file."""
        arrays: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        for name, statistics in self.statistics.items():
            kinds[name] = type(statistics).__name__
            arrays |= {f'{name}/{key}': array for key, array in vars(statistics).items()}
        arrays |= {f'examples/{name}': array for name, array in self.examples.items()}
        np.savez(path, metrics=json.dumps(self.metrics), kinds=json.dumps(kinds), finite=self.finite, **arrays)

    @classmethod
    def load(cls, path: Path) -> 'Accuracy':
        stored = np.load(path)

        def named(name: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(f'{name}/'): stored[key] for key in stored if key.startswith(f'{name}/')}

        statistics: dict[str, Resampled] = {}
        statistics |= {name: KINDS[kind](**named(name)) for name, kind in json.loads(str(stored['kinds'])).items()}
        metrics = json.loads(str(stored['metrics']))
        return cls(metrics, statistics, bool(stored['finite']), named('examples'))


def bootstrap_difference(first: Accuracy, second: Accuracy, name: str) -> tuple[float, float] | None:
    """95 % interval of first minus second in points of a metric; None without statistics of it, or of one sample."""
    if name not in first.statistics or name not in second.statistics or first.statistics[name].samples < 2:
        return None
    return interval_of_difference(first.statistics[name], second.statistics[name])
