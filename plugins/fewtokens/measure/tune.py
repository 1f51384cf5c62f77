"""Finds the settings that lose least at a speed, or are fastest at an agreement."""

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
from .cosine_search import CosineSearch
from .macs import forward
from .recipes import METHODS, Method
from .settings_search import BEAM, Search, mean_of_known
from .settings_search import UnreachableError as UnreachableError
from .speed_search import SpeedSearch
from .target import Target
from .timing import seconds_interleaved

SKETCHED = (0.4, 0.7, 1.4, 2.0)
"""Of the choice's gain: what the frontier is looked at for besides."""


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
    search = SpeedSearch(bench, methods, say) if target.speedup else CosineSearch(bench, methods, say)
    chosen = search.choose(cast(float, target.speedup or target.cosine))
    _sketch(search, bench.speedup(chosen))
    return _sum_up(search, target, chosen)


def _sketch(search: Search, chosen: float) -> None:
    """Looks at the frontier where other speeds are asked for, on few pictures and by expected time."""
    search.say('what other speeds would cost:')
    near = [search.tried[reducer] for reducer in sorted(search.tried, key=search.agreement_so_far, reverse=True)]
    recipes = list(dict.fromkeys([recipe for _, recipe in search.finalists] + near))[: 2 * BEAM]
    for part in SKETCHED:
        search.race(recipes, 1 + part * (chosen - 1))


def _sum_up(search: Search, target: Target, reducer: Reducer) -> Tuned:
    bench = search.bench
    others = [each for each, recipe in search.finalists if recipe != search.tried[reducer]]
    trials = [trial for each in search.tried if (trial := _trial(search, each)) is not None]
    held_out = lead = None
    if search.held_out:
        search.say('pictures that the search has not seen:')
        bench.compare([reducer, *others[:1]], search.held_out)
        held_out = mean_of_known(bench.cosines(reducer, search.held_out))
    if others and target.speedup is not None:
        judges = search.held_out or search.pictures
        lead = mean_of_known(bench.cosines(reducer, judges) - bench.cosines(others[0], judges))
    return Tuned(
        target=target,
        chosen=cast(Trial, _trial(search, reducer)),
        trials=trials,
        runner_up=_trial(search, others[0]) if others else None,
        held_out=held_out,
        lead=lead,
        pictures=(len(search.pictures), len(search.held_out)),
        milliseconds=bench.milliseconds(reducer),
        kept=bench.kept.found,
    )


def _trial(search: Search, reducer: Reducer) -> Trial | None:
    """None for what agreement was never taken of."""
    known, speed = search.bench.known_cosines(reducer, search.pictures), search.bench.speed(reducer)
    if not len(known):
        return None
    expected = search.expected.speed(search.tried[reducer], reducer)
    return Trial(
        reducer=reducer,
        macs=search.expected.share(reducer),
        speedup=speed.value if speed else expected,
        speed=speed,
        agreement=Figure.of(known, np.mean),
        unchanged=search.bench.count_unchanged(reducer, search.pictures),
    )
