from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from torch import Tensor

from ..ops.shared_update import merge_lengthened, restore_updated
from .base import (
    Grid,
    Reduced,
    Reducer,
    as_grid,
    check_after,
    check_at_least,
    check_increasing,
    check_until,
    fits,
    reduces,
)


@dataclass(frozen=True)
class Update:
    """Tokens as they were [B, N, C], the centers made of them [B, M, C], and whose each token is [B, N]."""

    before: Tensor
    centers: Tensor
    labels: Tensor

    def restore(self, tokens: Tensor) -> Tensor:
        """The tokens as they were, with the change of their centers to these [B, M, C]."""
        return restore_updated(self.before, tokens, self.centers, self.labels)


@dataclass(frozen=True)
class SharedUpdate(Reducer):
    """Groups neighbouring tokens; each keeps its own detail and takes the change that its group went through.

    Blocks after the clustering see one token for a group: the mean, made longer, as a mean is shorter than its members.
    Attention counts it as often as the group has members, and where the host's blocks are known well enough, norm and
    activation give what they would give on average over members that lie so far apart. At the end a token is itself
    before the clustering plus its group's change since then.

    Args:
        after: number of blocks before the clustering; several for nested stages.
        grid: clusters over the image, or within each attention window for windowed hosts; an integer means a square.
            As many as in `after` for nested stages.
        iters: soft iterations before tokens are assigned.
        window: side, in centers, of the neighbourhood whose centers a token may join.
        size_bias: whether attention counts members.
        spread: whether blocks are told how far a group's members lie apart.
        until: 'backbone' restores at its end, a number of blocks after that many.
    """

    restores: ClassVar[str] = 'update'

    grid: int | Grid | Sequence[Grid | int]
    iters: int = 5
    window: int = 3
    size_bias: bool = True
    spread: bool = True
    until: str | int = 'backbone'

    def __post_init__(self) -> None:
        check_at_least(0, iters=self.iters)
        check_at_least(1, window=self.window)
        if isinstance(self.after, int):
            object.__setattr__(self, 'grid', as_grid(self.grid))
            check_after(self.after)
            check_until(self.until, self.after, ('backbone',))
            return
        if not isinstance(self.grid, Sequence) or not 1 <= len(self.after) == len(self.grid):
            raise ValueError(f'after={self.after!r} and grid={self.grid!r} must be equally long')
        object.__setattr__(self, 'after', tuple(self.after))
        grids = tuple(map(as_grid, self.grid))
        object.__setattr__(self, 'grid', grids)
        for after in self.after:
            check_after(after)
        check_increasing(self.after)
        check_until(self.until, self.after, ('backbone',))
        for finer, coarser in zip(grids, grids[1:]):
            if not fits(coarser, finer):
                raise ValueError(
                    f'grid={self.grid}: a later stage must not be finer, and {coarser} is finer than {finer}'
                )

    def stages(self) -> tuple['SharedUpdate', ...]:
        if isinstance(self.after, int):
            return (self,)
        grids = cast(Sequence[Grid], self.grid)
        return tuple(replace(self, after=after, grid=grid) for after, grid in zip(self.after, grids))

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        clusters = cast(Grid, self.grid)
        if grid is None or not reduces(clusters, grid):
            return None
        centers, labels, merged, spreads = merge_lengthened(tokens, grid, clusters, self.iters, self.window, sizes)
        record = Update(tokens, centers, labels)
        return Reduced(centers, labels, record, clusters, merged, spreads if self.spread else None)

    def restore(self, tokens: Tensor, record: Update) -> Tensor:
        return record.restore(tokens)
