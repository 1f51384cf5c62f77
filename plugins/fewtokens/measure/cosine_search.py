"""The search for what is fastest at an agreement."""

from ..plugin import text_of
from ..reducers import Reducer
from .recipes import Recipe
from .settings_search import BEAM, COARSE, COUNTS, FINE, Search, UnreachableError, leading, mean_of_known


class CosineSearch(Search):
    def choose(self, wanted: float) -> Reducer:
        """The fastest of those that surely agree so well; raises an UnreachableError if there are none."""
        self.calibrate(2.0)
        slow, fast, speed = 1.0, None, 2.0
        best: list[Recipe] = []
        while fast is None or fast / slow > 1.1:
            self.say(f'methods and places at {speed:.2f}x:')
            ranked = self.race(self.first, speed)
            if ranked and ranked[0][1] >= wanted:
                slow, best = speed, [recipe for recipe, _ in leading(ranked, BEAM)]
            else:
                fast = speed
                if fast < 1.05:
                    break
            speed = 1.5 * slow if fast is None else (slow * fast) ** 0.5
        best = best or [recipe for recipe, _ in leading(self.race(self.first, 1.02), BEAM)]
        best = self.climb(best, max(slow, 1.02))
        self.say(f'the coarsest of the best at {wanted:g}:')
        found = [(recipe, place) for recipe in best if (place := self._coarsest(recipe, wanted)) is not None]
        settings = {self.ladder(recipe)[place]: recipe for recipe, place in found}
        if settings:
            self.say('their time:')
            self.time(settings, COARSE)
        useful = {reducer: recipe for reducer, recipe in settings.items() if self.bench.speedup(reducer) > 1}
        if not useful:
            raise self.too_different(wanted)
        self.time(dict(self._fastest_first(useful)[:2]), FINE)
        self.finalists = self._fastest_first(useful)
        return self.finalists[0][0]

    def _fastest_first(self, settings: dict[Reducer, Recipe]) -> list[tuple[Reducer, Recipe]]:
        return sorted(settings.items(), key=lambda each: -self.bench.speedup(each[0]))

    def _coarsest(self, recipe: Recipe, wanted: float) -> int | None:
        """The place on the ladder of the coarsest that agrees well enough: on few pictures, then on all."""
        ladder = self.ladder(recipe)
        low, high = -1, len(ladder)
        while high - low > 1:
            middle = (low + high) // 2
            self.tried[ladder[middle]] = recipe
            if self.agreement(ladder[middle], COUNTS[-1]) >= wanted:
                low = middle
            else:
                high = middle
        while low >= 0 and not self.surely_agrees(ladder[low], wanted):
            low -= 1
        if low < 0:
            return None
        self.tried[ladder[low]] = recipe
        return low

    def surely_agrees(self, reducer: Reducer, wanted: float) -> bool:
        """Whether the interval of its agreement, too, lies above what is asked for."""
        if self.agreement(reducer) < wanted:
            return False
        mean = mean_of_known(self.bench.cosines(reducer, self.pictures))
        return mean is not None and mean.low >= wanted

    def too_different(self, wanted: float) -> UnreachableError:
        most = max(self.tried, key=self.agreement_so_far)
        self.bench.time([most], COARSE)
        return UnreachableError(
            f'cosine >= {wanted:g} cannot be reached by anything that is faster: the nearest that was tried has '
            f'{self.agreement_so_far(most):.4f} at {self.bench.speedup(most):.2f}x, '
            f'{text_of(most)}'
        )
