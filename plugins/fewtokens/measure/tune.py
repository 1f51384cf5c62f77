"""The search for the settings that lose least at a speed, or are fastest at an agreement."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor, nn

from ..plugin import text_of
from ..reducers import Reducer
from .agreement import Call
from .bench import Bench, Figure
from .expected import Expected
from .macs import forward
from .recipes import METHODS, Method, Recipe, first_recipes
from .target import Target
from .timing import seconds_interleaved

FASTER = 0.05
"""How much faster than asked for a choice may be."""
AIM = 0.02
"""How much faster the search tries to be at most."""
BEAM = 3
"""How many recipes are followed."""
COUNTS = (2, 4, 8)
"""Pictures by which recipes are compared, ever more for ever fewer."""
TURNS = 6
"""How often the neighbours of the best are looked at, and how often grids are adjusted, at most."""
COARSE, FINE = 0.02, 0.01
"""Half the interval of a speed-up, as a part of it: of those to choose from, and of the choice."""
BUSY = 0.1
"""The same where speeds say little: other work disturbs them."""
SKETCHED = (0.4, 0.7, 1.4, 2.0)
"""Of the choice's gain: what the frontier is looked at for besides."""


class UnreachableError(ValueError):
    """Nothing that was tried reaches the target; the message says how far it went."""


@dataclass(frozen=True)
class Trial:
    """Settings with what is known of them.

    Attributes:
        macs: as a part of the full model's, of what agreement was taken from, without what merging itself takes.
        speedup: measured, or expected where `speed` is None.
        agreement: mean cosine over the pictures of the search that it was tried on.
        unchanged: how many pictures had too few tokens for it.
    """

    reducer: Reducer
    macs: float
    speedup: float
    speed: Figure | None
    agreement: Figure
    unchanged: int = 0

    @property
    def name(self) -> str:
        return text_of(self.reducer)


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        trials: all that was tried, the chosen one among them.
        runner_up: the best of those with other places, method or options.
        held_out: the choice's mean cosine over pictures that the search did not see; None if there were too few.
        lead: how much more the choice's cosine is than the runner-up's, where a speed was asked for: over the pictures
            held out, or over those of the search if there are none.
        pictures: how many the search saw, and how many were held out.
        milliseconds: of the full model and of the choice, for one picture.
        kept: how many figures came from an earlier run.
    """

    target: Target
    chosen: Trial
    trials: list[Trial]
    runner_up: Trial | None
    held_out: Figure | None
    lead: Figure | None
    pictures: tuple[int, int]
    milliseconds: tuple[float, float]
    kept: int

    @property
    def confirmed(self) -> bool | None:
        """Whether pictures held out say the same; None without any.

        Of an agreement that was asked for: that they have it. Else: that their interval meets the search's.
        """
        if self.held_out is None:
            return None
        if self.target.cosine is not None:
            return self.held_out.value >= self.target.cosine
        return self.held_out.high >= self.chosen.agreement.low


def tune(
    model: nn.Module,
    pictures: Sequence[Tensor],
    target: Target | str,
    *,
    call: Call = forward,
    look: Call | None = None,
    batch: int = 1,
    kept: Path | None = None,
    methods: tuple[Method, ...] = METHODS,
    clock: Callable[..., dict[str, np.ndarray]] = seconds_interleaved,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> Tuned:
    """Finds the settings that agree best with the full model at a speed, or the fastest that agree well enough.

    Time is measured against the full model with fused attention, in pairs; agreement is the cosine of the tokens that
    the backbone's caller sees. Where an agreement is asked for, all of its 95 % interval over the pictures reaches it.
    A third of the pictures is held out, and says at the end whether the choice holds.

    Args:
        model: in evaluation mode, with one backbone that `attach` knows.
        pictures: as the model takes them, [1, 3, H, W] each; of several sizes, the commonest is timed.
        target: such as '2x' or 'cosine >= 0.98'.
        call: what is timed, with the model and a picture (several if `batch` is more).
        look: what agreement is taken from; anything that runs the whole backbone will do. `call` if left out.
        batch: pictures at a time when timed.
        kept: file in which figures are kept as they are measured, and found when the search is run again.
        methods: what is tried.
        clock, say: how seconds are measured, and where progress is told.

    Raises:
        UnreachableError: nothing reaches the target.
        ValueError: no pictures, no known backbone, a model in training mode, or a malformed target.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    if not pictures:
        raise ValueError('there are no pictures to compare outputs on')
    if model.training:
        raise ValueError(f'{type(model).__name__} is in training mode, where outputs differ by chance: call its eval()')
    bench = Bench(model, pictures, kept, call, look, batch, clock)
    search = _Search(bench, methods, say)
    chosen = search.for_speed(target.speedup) if target.speedup else search.for_cosine(cast(float, target.cosine))
    search.sketch(bench.speedup(chosen))
    return search.sum_up(target, chosen)


class _Search:
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

    # What is measured

    def agreement(self, reducer: Reducer, count: int | None = None) -> float:
        """Mean cosine over pictures of the search; -1 where most have too few tokens for it."""
        values = self.bench.cosines(reducer, self.pictures[:count])
        return -1.0 if np.isnan(values).mean() > 0.5 else float(np.nanmean(values))

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
                ranked = _leading(ranked, max(2 * BEAM, len(ranked) // 3))
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

    # A speed

    def for_speed(self, speed: float) -> Reducer:
        self.calibrate(speed)
        self.say(f'methods and places at {speed:g}x: {len(self.first)} settings')
        best = [recipe for recipe, _ in _leading(self.race(self.first, speed), BEAM)]
        if not best:
            # Nothing is expected to be that fast, by what little was timed: the fastest may say otherwise.
            self.time_fastest()
            best = [recipe for recipe, _ in _leading(self.race(self.first, speed), BEAM)]
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

    # An agreement

    def for_cosine(self, wanted: float) -> Reducer:
        self.calibrate(2.0)
        slow, fast, speed = 1.0, None, 2.0
        best: list[Recipe] = []
        while fast is None or fast / slow > 1.1:
            self.say(f'methods and places at {speed:.2f}x:')
            ranked = self.race(self.first, speed)
            if ranked and ranked[0][1] >= wanted:
                slow, best = speed, [recipe for recipe, _ in _leading(ranked, BEAM)]
            else:
                fast = speed
                if fast < 1.05:
                    break
            speed = 1.5 * slow if fast is None else (slow * fast) ** 0.5
        best = best or [recipe for recipe, _ in _leading(self.race(self.first, 1.02), BEAM)]
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
        mean = _mean(self.bench.cosines(reducer, self.pictures))
        return mean is not None and mean.low >= wanted

    def too_different(self, wanted: float) -> UnreachableError:
        most = max(self.tried, key=self._agreement_so_far)
        self.bench.time([most], COARSE)
        return UnreachableError(
            f'cosine >= {wanted:g} cannot be reached by anything that is faster: the nearest that was tried has '
            f'{self._agreement_so_far(most):.4f} at {self.bench.speedup(most):.2f}x, '
            f'{text_of(most)}'
        )

    def _agreement_so_far(self, reducer: Reducer) -> float:
        known = self.bench.known_cosines(reducer, self.pictures)
        return float(known.mean()) if len(known) else -1.0

    # What else is told

    def sketch(self, chosen: float) -> None:
        """Looks at the frontier where other speeds are asked for, on few pictures and by expected time."""
        self.say('what other speeds would cost:')
        near = [self.tried[reducer] for reducer in sorted(self.tried, key=self._agreement_so_far, reverse=True)]
        recipes = list(dict.fromkeys([recipe for _, recipe in self.finalists] + near))[: 2 * BEAM]
        for part in SKETCHED:
            self.race(recipes, 1 + part * (chosen - 1))

    def sum_up(self, target: Target, reducer: Reducer) -> Tuned:
        bench = self.bench
        others = [each for each, recipe in self.finalists if recipe != self.tried[reducer]]
        trials = [trial for each in self.tried if (trial := self.trial(each)) is not None]
        held_out = lead = None
        if self.held_out:
            self.say('pictures that the search has not seen:')
            bench.compare([reducer, *others[:1]], self.held_out)
            held_out = _mean(bench.cosines(reducer, self.held_out))
        if others and target.speedup is not None:
            judges = self.held_out or self.pictures
            lead = _mean(bench.cosines(reducer, judges) - bench.cosines(others[0], judges))
        return Tuned(
            target=target,
            chosen=cast(Trial, self.trial(reducer)),
            trials=trials,
            runner_up=self.trial(others[0]) if others else None,
            held_out=held_out,
            lead=lead,
            pictures=(len(self.pictures), len(self.held_out)),
            milliseconds=bench.milliseconds(reducer),
            kept=bench.kept.found,
        )

    def trial(self, reducer: Reducer) -> Trial | None:
        """None for what agreement was never taken of."""
        known, speed = self.bench.known_cosines(reducer, self.pictures), self.bench.speed(reducer)
        if not len(known):
            return None
        expected = self.expected.speed(self.tried[reducer], reducer)
        return Trial(
            reducer=reducer,
            macs=self.expected.share(reducer),
            speedup=speed.value if speed else expected,
            speed=speed,
            agreement=Figure.of(known, np.mean),
            unchanged=self.bench.count_unchanged(reducer, self.pictures),
        )


def _leading(ranked: list[tuple[Recipe, float]], count: int) -> list[tuple[Recipe, float]]:
    """The best, and the best of each method: a method shows what it can do when its neighbours are looked at."""
    best = {recipe.method: (recipe, value) for recipe, value in reversed(ranked)}
    return ranked[:count] + [each for each in ranked[count:] if each == best[each[0].method]]


def _mean(values: np.ndarray) -> Figure | None:
    """Over those that there are."""
    values = values[~np.isnan(values)]
    return Figure.of(values, np.mean) if len(values) else None
