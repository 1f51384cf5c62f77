from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..ops.ward import merge_nearest_lengthened
from .base import Grid, Reduced, Reducer, as_places, check_until
from .shared_update import Update


@dataclass(frozen=True)
class GradualUpdate(Reducer):
    """Groups similar tokens, a few more at each of several places; each keeps its detail and takes its group's change.

    What becomes of a group is what `SharedUpdate` does: the mean made longer, counted as often as it has members, known
    to be spread; at the end a token is itself before it was merged plus its group's change since then. But groups are
    of any size and shape: a sky becomes one, an edge stays as fine as it was. They stand on no grid, so hosts with
    relative positions need `SharedUpdate`.

    Args:
        after: numbers of blocks before which tokens are merged, such as (1, 4, 7, 10) of 12.
        keep: the share of tokens that is left after the last place; each place leaves the same share of what it gets.
        size_bias: whether attention counts members.
        spread: whether blocks are told how far a group's members lie apart.
        until: 'backbone' restores at its end, a number of blocks after that many.
    """

    restores: ClassVar[str] = 'update'
    keeps_grid: ClassVar[bool] = False

    keep: float
    size_bias: bool = True
    spread: bool = True
    until: str | int = 'backbone'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'after', as_places(self.after))
        check_until(self.until, self.after, ('backbone',))
        if not isinstance(self.keep, (int, float)) or not 0 < self.keep < 1:
            raise ValueError(f'keep={self.keep!r} must be a share of the tokens between 0 and 1, such as 0.25')

    def stages(self) -> tuple['GradualUpdate', ...]:
        if isinstance(self.after, int):
            return (self,)
        share = self.keep ** (1 / len(self.after))
        return tuple(replace(self, after=after, keep=share) for after in self.after)

    def left(self, tokens: int) -> int:
        return max(1, round(self.keep * tokens))

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        count = int(tokens.shape[1])  # of a tensor that is being traced it is a tensor
        few = self.left(count)
        if few >= count:
            return None
        centers, labels, merged, spreads = merge_nearest_lengthened(tokens, few, sizes)
        record = Update(tokens, centers, labels)
        return Reduced(centers, labels, record, None, merged, spreads if self.spread else None)

    def restore(self, tokens: Tensor, record: Update) -> Tensor:
        return record.restore(tokens)
