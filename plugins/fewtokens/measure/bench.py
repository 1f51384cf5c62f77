"""What is measured of settings in a search: cost, time and agreement. Each figure is kept, and measured once."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..attach import only_host
from ..reducers import Reducer
from ..version import __version__
from .agreement import Call, cosine, final_tokens
from .costs import find_sites
from .environment import describe_environment
from .fingerprint import hash_tensor, hash_weights
from .kept import Kept
from .macs import forward
from .progress import progress_bar
from .resampling import interval_of
from .timing import seconds_interleaved
from .variants import FUSED, Variant

ROUNDS = 5
"""Pairs that are timed at a time, and the fewest that a figure is of."""


@dataclass(frozen=True)
class Figure:
    """A median or a mean with its 95 % interval, and of how many it is."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: np.ndarray, statistic: Callable) -> 'Figure':
        return cls(float(statistic(values)), *interval_of(values, statistic), len(values))

    @property
    def spread(self) -> float:
        """Half the interval, as a part of the value."""
        return (self.high - self.low) / 2 / abs(self.value)


class Bench:
    """Measures reducers on a model and pictures.

    Args:
        model: in evaluation mode, with one known backbone.
        pictures: what the model is called with, [1, ...] each; figures are known by their content.
        kept: file of figures, all of the same `call` and `look`; None keeps them in memory alone.
        call: what is timed, with the model and a picture.
        look: what agreement is taken from; anything that runs the whole backbone will do.
        batch: pictures at a time when timed.
        clock: measures seconds, as `seconds_interleaved` does.

    Attributes:
        timed: the picture that is timed, of the size that most have.
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: Sequence[Tensor],
        kept: Path | None = None,
        call: Call = forward,
        look: Call | None = None,
        batch: int = 1,
        clock: Callable[..., dict[str, np.ndarray]] = seconds_interleaved,
    ) -> None:
        self.model, self.pictures, self.call, self.look, self.clock = model, pictures, call, look or call, clock
        common = Counter(picture.shape for picture in pictures).most_common(1)[0][0]
        first = next(picture for picture in pictures if picture.shape == common)
        self.timed = first.expand(batch, *first.shape[1:]).contiguous()
        self.host, self.sites = only_host(model), find_sites(model, first, self.look)
        self._hashes = [hash_tensor(picture) for picture in pictures]
        machine = describe_environment(first.device)
        self.machine = [machine['device'], machine['threads'], batch]
        self.kept = Kept(kept, str(model), hash_weights(model), __version__)

    # Agreement

    def compare(self, reducers: Sequence[Reducer], pictures: Sequence[int]) -> None:
        """Measures the cosines of these reducers on these pictures, those that aren't known."""
        due = {
            picture: missing
            for picture in pictures
            if (missing := [r for r in reducers if self.kept.get(*self._of_picture(r, picture)) is None])
        }
        if not due:
            return
        with progress_bar(sum(len(missing) + 1 for missing in due.values()), 'comparing features') as bar:
            for picture, missing in due.items():
                full = self._tokens(Variant(FUSED), picture)[0]
                bar.update()
                for reducer in missing:
                    tokens, reduced = self._tokens(Variant(_name(reducer), reducer), picture)
                    value = cosine(full, tokens) if reduced else 'unchanged'
                    self.kept.put(value, *self._of_picture(reducer, picture))
                    bar.update()

    def cosines(self, reducer: Reducer, pictures: Sequence[int]) -> np.ndarray:
        """[pictures]; NaN for those with too few tokens, which go through unchanged."""
        self.compare([reducer], pictures)
        values = [self.kept.get(*self._of_picture(reducer, picture)) for picture in pictures]
        return np.array([np.nan if value == 'unchanged' else value for value in values])

    def known_cosines(self, reducer: Reducer, pictures: Sequence[int]) -> np.ndarray:
        """Those that were measured."""
        values = (self.kept.get(*self._of_picture(reducer, picture)) for picture in pictures)
        return np.array([value for value in values if isinstance(value, float)])

    def count_unchanged(self, reducer: Reducer, pictures: Sequence[int]) -> int:
        """How many of these pictures were found to have too few tokens."""
        return sum(self.kept.get(*self._of_picture(reducer, picture)) == 'unchanged' for picture in pictures)

    def _tokens(self, variant: Variant, picture: int) -> tuple[list[Tensor], bool]:
        with variant.applied(self.model) as reduction:
            tokens = final_tokens(self.host, self.model, self.pictures[picture], self.look)
            return tokens, reduction is not None and reduction.passes > 0

    def _of_picture(self, reducer: Reducer, picture: int) -> tuple:
        return 'cosine', _name(reducer), self._hashes[picture]

    # Time

    def time(
        self,
        reducers: Sequence[Reducer],
        precision: float,
        asked: tuple[float, float] = (0.0, np.inf),
        most: int = 40,
    ) -> None:
        """Times how many times as fast as the full model each is, in pairs, in turn.

        Goes on until half the interval is within `precision` of the value, or all of it outside of what is asked for,
        or there are `most` pairs.
        """
        reducers = list(dict.fromkeys(reducers))
        while due := [r for r in reducers if not self._is_known(r, precision, asked, most)]:
            variants = [Variant(FUSED), *(Variant(_name(reducer), reducer) for reducer in due)]
            contexts = {variant.name: (lambda v=variant: v.applied(self.model)) for variant in variants}
            fresh = not all(map(self._pairs, due))
            with torch.no_grad():
                seconds = self.clock(
                    contexts, lambda: self.call(self.model, self.timed), ROUNDS, int(fresh), self.timed.device
                )
            for reducer in due:
                pairs = np.stack([seconds[FUSED], seconds[_name(reducer)]], axis=1)
                self.kept.put(self._pairs(reducer) + pairs.tolist(), *self._of_time(reducer))

    def speedup(self, reducer: Reducer) -> float:
        """As measured, the median; NaN, which is neither faster nor slower than anything, if it was not timed."""
        ratios = self._ratios(reducer)
        return float(np.median(ratios)) if len(ratios) else np.nan

    def speed(self, reducer: Reducer) -> Figure | None:
        """The same with its interval."""
        ratios = self._ratios(reducer)
        return Figure.of(ratios, np.median) if len(ratios) else None

    def milliseconds(self, reducer: Reducer) -> tuple[float, float]:
        """Of the full model and of the reduced one, for one picture."""
        return tuple(1e3 * np.median(self._pairs(reducer), axis=0) / len(self.timed))

    def _is_known(self, reducer: Reducer, precision: float, asked: tuple[float, float], most: int) -> bool:
        speed = self.speed(reducer)
        if speed is None:
            return False
        outside = speed.high < asked[0] or speed.low > asked[1]
        return outside or speed.spread <= precision or speed.count >= most

    def _ratios(self, reducer: Reducer) -> np.ndarray:
        pairs = np.array(self._pairs(reducer)).reshape(-1, 2)
        return pairs[:, 0] / pairs[:, 1]

    def _pairs(self, reducer: Reducer) -> list[list[float]]:
        return self.kept.get(*self._of_time(reducer)) or []

    def _of_time(self, reducer: Reducer) -> tuple:
        return 'seconds', _name(reducer), list(self.timed.shape), str(self.timed.dtype), *self.machine


def _name(reducer: Reducer | None) -> Any:
    """With every option: another version may have other defaults."""
    return FUSED if reducer is None else repr(reducer)
