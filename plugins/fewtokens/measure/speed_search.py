"""The search for what agrees best at a speed."""

from collections.abc import Sequence
from typing import cast

from ..plugin import text_of
from ..reducers import Reducer
from .recipes import Recipe
from .settings_search import BEAM, COARSE, FINE, TURNS, Search, UnreachableError, leading

FASTER = 0.05
"""How much faster than asked for a choice may be."""
AIM = 0.02
"""How much faster the search tries to be at most."""
BUSY = 0.1
"""Half the interval of a speed-up, as a part of it, where speeds say little: other work disturbs them."""


class SpeedSearch(Search):
    def choose(self, speed: float) -> Reducer:
        """The best of those that are as fast as that, measured; raises an UnreachableError if there are none."""
        self.calibrate(speed)
        self.say(f'methods and places at {speed:g}x: {len(self.first)} settings')
        best = [recipe for recipe, _ in leading(self.race(self.first, speed), BEAM)]
        if not best:
            # Nothing is expected to be that fast, by what little was timed: the fastest may say otherwise.
            self.time_fastest()
            best = [recipe for recipe, _ in leading(self.race(self.first, speed), BEAM)]
        if not best:
            raise self.too_slow(speed)
        best = self.climb(best, speed)
        self.say('grids of the best, by time:')
        self.settle(best, speed, COARSE)
        refined: set[Recipe] = set()
        # What was found fast enough may turn out not to be when it is timed for longer.
        for _ in range(TURNS):
            if not self.as_fast(speed):
                self.settle(best, speed, FINE)
            pool = self.as_fast(speed)
            if not pool:
                break
            self.say('the best on all pictures of the search, and its time:')
            self.bench.compare(list(pool), self.pictures)
            self.finalists = sorted(pool.items(), key=lambda each: -self.agreement(each[0]))
            (reducer, recipe), *_ = self.finalists
            self.time({reducer: recipe}, FINE)
            if self.bench.speedup(reducer) > (1 + AIM) * speed and recipe not in refined:
                # It was thought slower: a finer grid of it may do, and agree better.
                refined.add(recipe)
                self.settle([recipe], speed, FINE)
            elif reducer in self.as_fast(speed):
                return reducer
        raise self.too_slow(speed)

    def as_fast(self, speed: float) -> dict[Reducer, Recipe]:
        """What was timed to be as fast as asked for: if there are such, those that are little faster."""
        timed = {reducer: self.bench.speedup(reducer) for reducer in self.tried}
        enough = {reducer: found for reducer, found in timed.items() if found >= speed}
        near = [reducer for reducer, found in enough.items() if found <= (1 + FASTER) * speed]
        return {reducer: self.tried[reducer] for reducer in near or enough}

    def settle(self, recipes: Sequence[Recipe], speed: float, precision: float) -> None:
        """Times ever nearer settings of each recipe, until one is as fast as asked for and little faster."""
        slow, fast = dict.fromkeys(recipes, -1), {recipe: len(self.ladder(recipe)) for recipe in recipes}
        for _ in range(2 * TURNS):
            places = {recipe: self._next(recipe, slow[recipe], fast[recipe], speed) for recipe in recipes}
            due = {self.ladder(recipe)[place]: recipe for recipe, place in places.items() if place is not None}
            if not due:
                break
            self.time(due, precision, (speed, (1 + AIM) * speed))
            for reducer, recipe in due.items():
                bound = fast if self.bench.speedup(reducer) >= speed else slow
                bound[recipe] = cast(int, places[recipe])

    def _next(self, recipe: Recipe, slow: int, fast: int, speed: float) -> int | None:
        """The place on the ladder to time next, between one that is too slow and one that isn't."""
        ladder = self.ladder(recipe)
        done = fast < len(ladder) and self.bench.speedup(ladder[fast]) <= (1 + AIM) * speed
        if done or fast - slow < 2:
            return None
        place = self.expected.reach(recipe, ladder, (1 + AIM / 2) * speed)
        return min(max(len(ladder) - 1 if place is None else place, slow + 1), fast - 1)

    def time_fastest(self) -> None:
        """Times the coarsest setting of the recipe that is expected to be fastest."""
        fastest = max(
            (recipe for recipe in self.first if self.ladder(recipe)),
            key=lambda recipe: self.expected.speed(recipe, self.ladder(recipe)[-1]),
        )
        self.time({self.ladder(fastest)[-1]: fastest}, COARSE)

    def too_slow(self, speed: float) -> UnreachableError:
        """What to say when nothing is that fast: the most that is."""
        self.time_fastest()
        timed = {reducer: found for reducer in self.tried if (found := self.bench.speed(reducer)) is not None}
        most, found = max(timed.items(), key=lambda each: each[1].value)
        disturbed = f'; times vary by {found.spread:.0%} here, as on a machine that is busy with other work'
        return UnreachableError(
            f'{speed:g}x cannot be reached: the most that was measured is {found.value:.2f}x, by {text_of(most)}'
            f'{disturbed if found.spread > BUSY else ""}'
        )
