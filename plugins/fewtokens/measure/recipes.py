"""What a search for settings chooses from: methods, places, options, and grids from fine to coarse."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..ops.grid import Grid, pair
from ..reducers import BipartiteMerge, GradualUpdate, Hourglass, Reducer, SharedUpdate
from .costs import Sites

LAST = 0.7
"""Of the depth: nothing is merged first after that part of the blocks, where little would be gained."""
SPREAD = 8
"""How many places the search begins with."""
STEPS = (0.85, 0.75, 0.6)
"""How much smaller the side of the next stage's grid may be."""
QUARTERS = 4
"""At how many places over a whole model groups grow: with more of them merging itself takes more than it gains."""


@dataclass(frozen=True, eq=False)
class Method:
    """A method that is tried.

    Attributes:
        places: at how many places of a model it may act at most.
        options: values to try of its options; the first that are listed are where the search begins.
    """

    reducer: type[Reducer]
    places: int = 1
    options: dict[str, tuple] = dataclasses.field(default_factory=dict)

    @property
    def start(self) -> int:
        """The first place that is tried. Before block 0 patches are worth merging by likeness, not on a grid."""
        return int(self.reducer.keeps_grid)


# A further option to try is one more entry in `options`.
METHODS = (
    Method(GradualUpdate, places=2),
    Method(SharedUpdate, places=3, options=dict(size_bias=(True, False), spread=(True, False))),
    Method(Hourglass),
    Method(BipartiteMerge, places=2),
)


def first_places(sites: Sites, method: Method) -> list[int]:
    """Places for the first stage, from early to late."""
    last = max(1, int(LAST * sites.depth))
    return [place for place, grid in enumerate(sites.grids) if grid and method.start <= place <= last]


def spread_places(sites: Sites, method: Method) -> list[int]:
    """Some of them, from the first to the last."""
    places = first_places(sites, method)
    count = min(SPREAD, len(places))
    return [places[i * (len(places) - 1) // max(1, count - 1)] for i in range(count)]


def next_place(sites: Sites, place: int) -> int | None:
    """A place for one more stage: a third of the way to the region's end, or where the next region begins."""
    end = sites.ends[place]
    middle = place + max(1, (end - place) // 3)
    found = middle if middle < end - 1 else end
    return found if found < sites.depth and sites.grids[found] else None


@dataclass(frozen=True)
class Recipe:
    """A method at its places, with its options. How fine it is is another matter: see `ladder`.

    Attributes:
        places: `after` of each stage; of methods that keep no grid the first and the last.
        steps: the side of each further stage's grid, as a part of the one before.
        options: other than the method's defaults.
    """

    method: Method
    places: tuple[int, ...]
    steps: tuple[float, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """Recipes of a kind cost alike beyond their MACs."""
        return f'{self.method.reducer.__name__} {len(self.places)} {self.options}'

    @property
    def values(self) -> dict[str, Any]:
        """Of all options that are tried."""
        return {name: values[0] for name, values in self.method.options.items()} | dict(self.options)

    def ladder(self, sites: Sites) -> list[Reducer]:
        """Settings from the finest to the coarsest."""
        if not self.method.reducer.keeps_grid:
            return self._counts(sites) if self.method.reducer is BipartiteMerge else self._shares(sites)
        options, made = dict(self.values), []
        make: Any = self.method.reducer
        for grid in shrink(sites.grid(self.places[0])):
            grids = self._grids(sites, grid)
            if not self._all_act(sites, grids):
                continue
            after, each = (self.places, grids) if len(self.places) > 1 else (self.places[0], grids[0])
            try:
                reducer = make(after=after, grid=each, **options)
            except ValueError:  # a later stage that would be finer
                continue
            if reducer not in made:
                made.append(reducer)
        return made

    def _grids(self, sites: Sites, first: Grid) -> tuple[Grid, ...]:
        grids = [first]
        for before, place, step in zip(self.places, self.places[1:], self.steps):
            if place < sites.ends[before]:
                grids.append(pair(max(1, round(step * side)) for side in grids[-1]))
                continue
            # A region of its own, whose tokens are whole again: as fine as the first, but no finer than the one before.
            sides = zip(first, sites.grid(self.places[0]), sites.grid(place), grids[-1])
            grids.append(pair(max(1, min(round(few / many * own), most)) for few, many, own, most in sides))
        return tuple(grids)

    def _all_act(self, sites: Sites, grids: tuple[Grid, ...]) -> bool:
        """Whether every stage makes fewer tokens of those that it is given."""
        given = [sites.grid(self.places[0])]
        for before, place, grid in zip(self.places, self.places[1:], grids):
            given.append(grid if place < sites.ends[before] else sites.grid(place))
        return all(tuple(grid) != tuple(many) for grid, many in zip(grids, given))

    def _counts(self, sites: Sites) -> list[Reducer]:
        first, last = self.places
        after = tuple(range(first, last + 1))
        tokens = sites.grid(first)[0] * sites.grid(first)[1]
        options = dict(self.values)
        return [BipartiteMerge(after, each, **options) for each in range(1, tokens // (len(after) + 1) + 1)]

    def _shares(self, sites: Sites) -> list[Reducer]:
        first, last = self.places
        after = tuple(range(first, last + 1, max(1, sites.depth // QUARTERS)))
        return [GradualUpdate(after, percent / 100, **dict(self.values)) for percent in range(95, 2, -1)]

    def neighbours(self, sites: Sites) -> Iterator['Recipe']:
        """Recipes that differ from this one in one thing."""
        yield from self._moved(sites)
        for name, values in self.method.options.items():
            for value in values:
                if value != self.values[name]:
                    options = {**dict(self.options), name: value}
                    changed = {key: v for key, v in options.items() if v != self.method.options[key][0]}
                    yield dataclasses.replace(self, options=tuple(sorted(changed.items())))
        for index, step in enumerate(self.steps):
            near = STEPS.index(step)
            for other in (near - 1, near + 1):
                if 0 <= other < len(STEPS) and self.places[index + 1] < sites.ends[self.places[index]]:
                    steps = (*self.steps[:index], STEPS[other], *self.steps[index + 1 :])
                    yield dataclasses.replace(self, steps=steps)

    def _moved(self, sites: Sites) -> Iterator['Recipe']:
        def possible(places: tuple[int, ...]) -> bool:
            known = all(0 <= place < sites.depth and sites.grids[place] for place in places)
            rising = all(a < b for a, b in itertools.pairwise(places))
            return known and rising and places[0] in first_places(sites, self.method)

        for index, shift in itertools.product(range(len(self.places)), (-1, 1)):
            moved = list(self.places)
            moved[index] += shift
            if possible(tuple(moved)):
                yield dataclasses.replace(self, places=tuple(moved))
        if not self.method.reducer.keeps_grid:
            return
        for index in range(len(self.places) if len(self.places) > 1 else 0):
            places = self.places[:index] + self.places[index + 1 :]
            if possible(places):
                yield dataclasses.replace(self, places=places, steps=self.steps[1:])
        more = next_place(sites, self.places[-1])
        if len(self.places) < self.method.places and more is not None:
            yield dataclasses.replace(self, places=(*self.places, more), steps=(*self.steps, STEPS[1]))


def first_recipes(sites: Sites, methods: tuple[Method, ...] = METHODS) -> list[Recipe]:
    """A spread over methods and places to begin with."""
    found = []
    for method in methods:
        spread = spread_places(sites, method)
        if not method.reducer.keeps_grid:
            if not sites.relative_positions:
                last = max(place for place, grid in enumerate(sites.grids) if grid) * 3 // 4
                found += [Recipe(method, (place, last)) for place in spread[::2] if place < last]
            continue
        found += [Recipe(method, (place,)) for place in spread]
        if method.places > 1:
            for place in spread:
                chain = [place]
                while len(chain) < method.places and (more := next_place(sites, chain[-1])) is not None:
                    chain.append(more)
                    found.append(Recipe(method, tuple(chain), (STEPS[1],) * (len(chain) - 1)))
    return found


def shrink(grid: Grid) -> list[Grid]:
    """Smaller grids in about the same proportions, from the finest to one cluster.

    A side may be one off its proportion: few squares lie between 7 x 7 and 1 x 1.
    """
    rows, columns = grid
    found = set()
    for row in range(1, rows + 1):
        near = max(1, round(row * columns / rows))
        found |= {(row, side) for side in (near - 1, near, near + 1) if 1 <= side <= columns}
    found |= {(max(1, round(column * rows / columns)), column) for column in range(1, columns + 1)}
    by_count: dict[int, Grid] = {}
    for each in sorted(found - {tuple(grid)}, key=lambda g: abs(g[0] * columns - g[1] * rows)):
        by_count.setdefault(each[0] * each[1], each)
    return [by_count[count] for count in sorted(by_count, reverse=True)]
