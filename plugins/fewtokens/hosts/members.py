"""Which tokens the reduced ones stand for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor

from ..ops.grid import Grid
from ..ops.labels import mean_by_label
from ..ops.precision import in_float32
from ..ops.tiles import pool_tokens


@dataclass(frozen=True)
class Members:
    """The tokens that a stage was given, by those that it made of them; both without prefix tokens."""

    labels: Tensor
    """[B, N] int64: which of the reduced tokens each went into."""
    count: int
    """M, reduced tokens of a sample."""
    grid: Grid | None
    """(H, W) of the tokens; None for tokens on no grid."""
    clusters: Grid | None
    """(h, w) of the reduced tokens; None for tokens on no grid."""
    outer: Optional['Members'] = None
    """Of the stage before, which made the tokens."""

    made: list[Any] = field(default_factory=list, compare=False, repr=False)
    """The last values of `once`, and what was made of them."""

    def once(self, make: Callable[..., Any], *values: Tensor) -> Any:
        """`make(*values, self)`, made once for all blocks of a pass that are given the same values."""
        if torch.compiler.is_dynamo_compiling() or any(value.requires_grad for value in values):
            return make(*values, self)
        if not self.made or any(one is not other for one, other in zip(self.made[0], values)):
            self.made[:] = values, make(*values, self)
        return self.made[1]

    def mean(self, values: Tensor) -> Tensor:
        """Means over the tokens of an image that each reduced token stands for, [B or 1, N, C] -> [B, M, C].

        One that stands for none has the mean of its place on the grid, or 0 where there is no grid.
        """
        return in_float32(lambda values: self._weighed(values)[0])(values)

    def _weighed(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The means, and of how many tokens they are, [B, M]."""
        if self.outer is None:
            values = values.expand(len(self.labels), -1, -1)
            sizes = values.new_ones(values.shape[:2])
        else:
            values, sizes = self.outer._weighed(values)
        pooled = None
        if self.grid is not None and self.clusters is not None:
            pooled = pool_tokens(values, self.grid, self.clusters)
        return mean_by_label(values, self.labels, sizes, self.count, pooled)
