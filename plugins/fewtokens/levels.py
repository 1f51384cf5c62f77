"""What the stages of a reducer made in one forward pass."""

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, cast

from torch import Tensor

from .hosts import AttentionContext, Layout
from .ops.grid import Grid
from .ops.labels import mean_by_label
from .ops.precision import in_float32
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
        if self._copies:
            prefix, reduced = self.after.split(tokens)
            return self.outermost.before.join(prefix, self.restore_map(reduced))
        tokens = self.expand(tokens)
        return tokens if self.outer is None else self.outer.restore(tokens)

    def expand(self, tokens: Tensor) -> Tensor:
        """A block's tokens as they were before this level alone."""
        prefix, reduced = self.after.split(tokens)
        return self.before.join(prefix, self.stage.restore(reduced, self.reduced.record))

    def merge(self, tokens: Tensor) -> Tensor:
        """The inverse of `expand`: a block's tokens as means of this level's groups."""
        prefix, whole = self.before.split(tokens)
        sizes = whole.new_ones(whole.shape[:2]) if self.outer is None else self.outer.reduced.sizes
        n_groups = cast(Tensor, self.reduced.sizes).shape[1]
        means, _ = in_float32(mean_by_label)(whole, self.reduced.labels, sizes, n_groups)
        return self.after.join(prefix, means)

    def restore_map(self, values: Tensor) -> Tensor:
        """A value for each reduced token, without prefix tokens, as one for each token of the image."""
        if self._copies:
            return self.stage.restore(values, self._whole_labels())
        values = self.stage.restore(values, self.reduced.record)
        return values if self.outer is None else self.outer.restore_map(values)

    @property
    def _copies(self) -> bool:
        return self.stage.restores == 'copy'

    def _whole_labels(self) -> Tensor:
        """[B, N]: where each token of the image went: copies of copies are made in one step."""
        labels = self.reduced.labels
        return labels if self.outer is None else labels.gather(1, self.outer._whole_labels())

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
    keys: dict[int, Tensor] = field(default_factory=dict)
    """What tokens are compared by that are merged inside the block of that index."""
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
