"""What every reducer has: settings, reduce, restore."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..ops.grid import Grid


@dataclass(frozen=True)
class Reduced:
    """What one stage makes of the tokens that it is given."""

    tokens: Tensor
    """[B, M, C], fewer than before."""
    labels: Tensor
    """[B, N] int64: where each token of before went, 0 to M - 1."""
    record: Any
    """What `restore` needs."""
    grid: Grid | None = None
    """(gh, gw) of the tokens, None where they stand on no grid."""
    sizes: Tensor | None = None
    """[B, M] float: how many original tokens each stands for, None where the method doesn't count."""
    spreads: Tensor | None = None
    """[B, M] float: the variance of the tokens that each was made of around their mean, averaged over channels; None
    where the method leaves it out of account."""


@dataclass(frozen=True)
class Reducer:
    """A method with its settings. A new one is a frozen dataclass with `reduce` and `restore`."""

    after: int | Sequence[int]
    """How many blocks come before the tokens are reduced; several for a method that acts at several places."""

    restores: ClassVar[str] = 'state'
    """'state': restored tokens are made from reduced ones alone, of any width: a head may run on the reduced tokens.
    'copy': as 'state', and each is a copy of the reduced one of its label; `record` is the labels.
    'update': restored tokens are old ones plus a change, so only the residual stream itself can be restored."""
    inside_blocks: ClassVar[bool] = False
    """Whether tokens are merged between a block's attention and its MLP, as means by label; `reduce` is told what
    attention compares them by, `keys` [B, N, D]."""
    keeps_grid: ClassVar[bool] = True
    """Whether the reduced tokens stand on a grid; hosts with relative positions need one."""
    # Without annotation: a method may have it as a setting.
    size_bias = False
    """Whether attention counts a token as often as it has members."""
    spread = False
    """Whether blocks are told how far a token's members lie apart."""

    if TYPE_CHECKING:  # A method that keeps no grid has none.

        @property
        def grid(self) -> Any: ...

    @property
    def _grid(self) -> Grid:
        """A stage's `grid`."""
        return self.grid

    def stages(self) -> tuple['Reducer', ...]:
        """One reducer for each place the method acts at, in order, each with an integer `after`."""
        return (self,)

    def with_defaults(self, defaults: dict[str, Any]) -> 'Reducer':
        """Settings that are None take the host family's published default."""
        names = {field.name for field in dataclasses.fields(self)}
        missing = {name: value for name, value in defaults.items() if name in names and getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def left(self, tokens: int) -> int:
        """How many of a stage's tokens are left by it: as many as its grid has, where it doesn't say otherwise."""
        return self._grid[0] * self._grid[1]

    def misfit(self, tokens: Tensor, grid: Grid | None) -> str | None:
        """In what way the settings ruin these tokens, None if they don't. Reads values back: asked once a model."""
        return None

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        """Reduces tokens [B, N, C] on a grid (None: on none), or returns None where there are too few of them."""
        raise NotImplementedError

    def restore(self, tokens: Tensor, record: Any) -> Tensor:
        """Brings processed tokens [B, M, D] back to [B, N, D]."""
        raise NotImplementedError


def fits(clusters: Grid, grid: Grid | None) -> bool:
    return grid is not None and all(few <= many for few, many in zip(clusters, grid))


def reduces(clusters: Grid, grid: Grid | None) -> bool:
    """Whether a grid has more tokens than clusters, and no fewer in either direction."""
    return grid is not None and fits(clusters, grid) and tuple(clusters) != tuple(grid)


def as_grid(value: Any) -> Grid:
    """An integer means a square. Raises a ValueError for what is no grid."""
    grid = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(grid) != 2 or not all(isinstance(side, int) and side >= 1 for side in grid):
        raise ValueError(f'grid={value!r} must be a positive integer or a pair of them')
    return grid


def check_after(after: Any) -> None:
    if not isinstance(after, int) or isinstance(after, bool) or after < 0:
        raise ValueError(f'after={after!r} must be a number of blocks, 0 or more')


def as_places(after: int | Sequence[int]) -> int | tuple[int, ...]:
    """A number of blocks, or increasing ones as a tuple. Raises a ValueError for what is neither."""
    if not isinstance(after, Sequence):
        check_after(after)
        return after
    places = tuple(after)
    check_increasing(places)
    if not places:
        raise ValueError('after=() names no block')
    for place in places:
        check_after(place)
    return places


def check_increasing(after: Sequence[int]) -> None:
    if any(first >= second for first, second in zip(after, after[1:])):
        raise ValueError(f'after={after} must increase')


def check_until(until: str | int, after: int | Sequence[int], choices: tuple[str, ...]) -> None:
    """Where tokens become whole again: one of the words, or the number of blocks before it."""
    last = after if isinstance(after, int) else max(after)
    if isinstance(until, int) and not isinstance(until, bool):
        if until <= last:
            raise ValueError(f'until={until} must be a number of blocks above {last}, after which tokens are reduced')
        return
    if until not in choices:
        words = ', '.join(map(repr, choices))
        raise ValueError(f'until={until!r} must be one of {words}, or a number of blocks')


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} must be one of {", ".join(map(repr, choices))}')


def check_at_least(lowest: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or value < lowest):
            raise ValueError(f'{name}={value!r} must be an integer of at least {lowest}')
