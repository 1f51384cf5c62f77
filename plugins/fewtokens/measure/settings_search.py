"""What a search for settings measures, and how it goes from recipe to recipe."""

from collections.abc import Callable, Sequence

import numpy as np

from ..reducers import Reducer
from .bench import Bench, Figure
from .expected import Expected
from .recipes import Method, Recipe, first_recipes

BEAM = 3
"""How many recipes are followed."""
COUNTS = (2, 4, 8)
"""Pictures by which recipes are compared, ever more for ever fewer."""
TURNS = 6
"""How often the neighbours of the best are looked at, and how often grids are adjusted, at most."""
COARSE, FINE = 0.02, 0.01
"""Half the interval of a speed-up, as a part of it: of those to choose from, and of the choice."""


class UnreachableError(ValueError):
    """Nothing that was tried reaches the target; the message says how far it went."""


class Search:
    """What both searches have: recipes, what was measured of them, and the way to the better ones."""

    def __init__(self, bench: Bench, methods: tuple[Method, ...], say: Callable[[str], None]) -> None:
        self.bench, self.say, self.sites = bench, say, bench.sites
        every = range(len(bench.pictures))
        self.held_out = [picture for picture in every if picture % 3 == 1]
        self.pictures = [picture for picture in every if picture % 3 != 1]
        self.expected = Expected(bench)
        self.first = first_recipes(bench.sites, methods)
        if not self.first:
            raise ValueError('no block of the model has tokens that can be merged')
        self.tried: dict[Reducer, Recipe] = {}
        self._ladders: dict[Recipe, list[Reducer]] = {}
        self.finalists: list[tuple[Reducer, Recipe]] = []
        """What the choice is among, the best first."""

    def ladder(self, recipe: Recipe) -> list[Reducer]:
        if recipe not in self._ladders:
            self._ladders[recipe] = sorted(recipe.ladder(self.sites), key=lambda each: -self.sites.share(each))
        return self._ladders[recipe]

    def agreement(self, reducer: Reducer, count: int | None = None) -> float:
        """Mean cosine over pictures of the search; -1 where most have too few tokens for it."""
        values = self.bench.cosines(reducer, self.pictures[:count])
        return -1.0 if np.isnan(values).mean() > 0.5 else float(np.nanmean(values))

    def agreement_so_far(self, reducer: Reducer) -> float:
        known = self.bench.known_cosines(reducer, self.pictures)
        return float(known.mean()) if len(known) else -1.0

    def time(self, settings: dict[Reducer, Recipe], precision: float, asked: tuple[float, float] = (0, np.inf)) -> None:
        self.bench.time(list(settings), precision, asked)
        self.expected.learn(settings)
        self.tried |= settings

    def calibrate(self, speed: float) -> None:
        """Times one recipe of each kind: MACs say how fast others will be."""
        self.say('how fast each method is:')
        kinds: dict[str, list[Recipe]] = {}
        for recipe in self.first:
            kinds.setdefault(recipe.kind, []).append(recipe)
        middle = [alike[len(alike) // 3] for alike in kinds.values()]
        reached = ((recipe, self.expected.reach(recipe, self.ladder(recipe), speed)) for recipe in middle)
        found = {self.ladder(recipe)[-1 if place is None else place]: recipe for recipe, place in reached}
        self.time(found, precision=2 * COARSE)

    def race(self, recipes: Sequence[Recipe], speed: float) -> list[tuple[Recipe, float]]:
        """Recipes at a speed with their agreement, the best first, those that don't come near left out."""
        settings = {}
        for recipe in recipes:
            place = self.expected.reach(recipe, self.ladder(recipe), speed)
            if place is not None:
                settings[recipe] = self.ladder(recipe)[place]
        ranked: list[tuple[Recipe, float]] = [(recipe, 0.0) for recipe in settings]
        for count in COUNTS:
            self.bench.compare([settings[recipe] for recipe, _ in ranked], self.pictures[:count])
            ranked = [(recipe, self.agreement(settings[recipe], count)) for recipe, _ in ranked]
            ranked.sort(key=lambda each: -each[1])
            self.tried |= {settings[recipe]: recipe for recipe, _ in ranked}
            if count >= len(self.pictures):
                break
            if count != COUNTS[-1]:
                ranked = leading(ranked, max(2 * BEAM, len(ranked) // 3))
        return ranked

    def climb(self, best: list[Recipe], speed: float) -> list[Recipe]:
        """Goes on to the neighbours of the best as long as they are better."""
        seen = set(best)
        for turn in range(TURNS):
            new = [near for recipe in best for near in recipe.neighbours(self.sites)]
            new = [recipe for recipe in dict.fromkeys(new) if recipe not in seen]
            if not new:
                break
            self.say(f'around the best, turn {turn + 1}: {len(new)} settings')
            seen |= set(new)
            before, best = best, [recipe for recipe, _ in self.race([*best, *new], speed)][:BEAM]
            if best[:1] == before[:1]:
                break
        return best


def leading(ranked: list[tuple[Recipe, float]], count: int) -> list[tuple[Recipe, float]]:
    """The best, and the best of each method: a method shows what it can do when its neighbours are looked at."""
    best = {recipe.method: (recipe, value) for recipe, value in reversed(ranked)}
    return ranked[:count] + [each for each in ranked[count:] if each == best[each[0].method]]


def mean_of_known(values: np.ndarray) -> Figure | None:
    """Over those that there are."""
    values = values[~np.isnan(values)]
    return Figure.of(values, np.mean) if len(values) else None
