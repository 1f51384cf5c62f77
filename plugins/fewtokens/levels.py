"""What the stages of a reducer made in one forward pass."""

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from torch import Tensor

from .hosts import AttentionContext, Layout
from .ops.grid import Grid
from .reducers import Reduced, Reducer


@dataclass(frozen=True)
class Level:
    """What one stage made, and the level outside it, whose tokens it was given."""

    stage: Reducer
    reduced: Reduced
    before: Layout
    after: Layout
    end: int
    """The number of blocks until its tokens must be whole again."""
    counts: tuple[int, int]
    """Tokens of an image before and after."""
    outer: Optional['Level'] = None
    context: AttentionContext | None = None
    """For attention over its tokens."""

    def restore(self, tokens: Tensor) -> Tensor:
        """A block's reduced tokens as those of the whole image."""
        prefix, reduced = self.after.split(tokens)
        tokens = self.before.join(prefix, self.stage.restore(reduced, self.reduced.record))
        return tokens if self.outer is None else self.outer.restore(tokens)

    def restore_map(self, values: Tensor) -> Tensor:
        """A value for each reduced token, without prefix tokens, as one for each token of the image."""
        values = self.stage.restore(values, self.reduced.record)
        return values if self.outer is None else self.outer.restore_map(values)

    @property
    def outermost(self) -> 'Level':
        return self if self.outer is None else self.outer.outermost

    def outermost_first(self) -> Iterator['Level']:
        if self.outer is not None:
            yield from self.outer.outermost_first()
        yield self

    def labels_alone(self) -> 'Level':
        """Without what would keep a pass's features in memory."""
        outer = None if self.outer is None else self.outer.labels_alone()
        return dataclasses.replace(self, reduced=Reduced(None, self.reduced.labels, None), outer=outer, context=None)


@dataclass
class Pass:
    """One forward pass of a backbone."""

    grid: Grid
    seen: Collection[int] | None
    """Indices of the blocks whose output somebody sees; None where it is not known: all of them."""
    training: bool
    """Gradients were on when it began: a checkpointed block may run again after it ended."""
    thread: int = 0
    """That it began in."""
    backward: int = -1
    """The number of the backward pass that it began in, -1 for none."""
    counted: bool = False
    levels: dict[int, Level] = field(default_factory=dict)
    """By the index of the first block that works on their tokens."""
    maps: dict[int, Level] = field(default_factory=dict)
    """The levels' labels alone, which may be asked for after the pass."""
    waiting: dict[int, Tensor] = field(default_factory=dict)
    """Reduced tokens for the block of that index, whose own input was restored for the caller."""
    normed: Any = None
    """What the last block returned for the final norm."""
    final: Tensor | None = None
    """Reduced tokens at the backbone's end, for a head that works on them."""
    outputs: tuple[Tensor, ...] = ()
    """What the backbone returned, by which a head's call is known to be of this pass."""
