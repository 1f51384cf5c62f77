"""How fast settings will be, by what few of them took: time follows MACs, and each method has a cost of its own."""

from bisect import bisect_left

import numpy as np

from ..reducers import Reducer
from .bench import Bench
from .recipes import Recipe


class Expected:
    """Speed-ups from MACs. Learns from each recipe that was timed."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._timed: dict[Reducer, Recipe] = {}
        self._share = 1.0

    def share(self, reducer: Reducer) -> float:
        return self.bench.sites.share(reducer)

    def learn(self, timed: dict[Reducer, Recipe]) -> None:
        """Notes settings that were timed: 1 / speed-up = 1 - share * (1 - MACs), and what each kind deviates."""
        self._timed |= timed
        saved = np.array([1 - self.share(reducer) for reducer in self._timed])
        gained = np.array([1 - 1 / self.bench.speedup(reducer) for reducer in self._timed])
        self._share = float(np.clip((saved @ gained) / max(saved @ saved, 1e-9), 0.05, 1.1))

    def speed(self, recipe: Recipe, reducer: Reducer) -> float:
        return self._by_macs(self.share(reducer)) * self._deviation(recipe)

    def _by_macs(self, share: float) -> float:
        return 1 / max(0.01, 1 - self._share * (1 - share))

    def _deviation(self, recipe: Recipe) -> float:
        """From what MACs say, of the recipe itself if it was timed, or of those that are most like it."""
        ratios = {r: self.bench.speedup(r) / self._by_macs(self.share(r)) for r in self._timed}
        for alike in (
            lambda other: other == recipe,
            lambda other: other.kind == recipe.kind,
            lambda other: other.method is recipe.method,
        ):
            found = [ratio for reducer, ratio in ratios.items() if alike(self._timed[reducer])]
            if found:
                return float(np.median(found))
        return 1.0

    def reach(self, recipe: Recipe, ladder: list[Reducer], speed: float) -> int | None:
        """The place on the ladder of the finest setting that will be as fast; None if none will."""
        if not ladder or self.speed(recipe, ladder[-1]) < speed:
            return None
        due = 1 - (1 - self._deviation(recipe) / speed) / self._share
        return min(bisect_left(ladder, -due, key=lambda reducer: -self.share(reducer)), len(ladder) - 1)
