"""A clustering between the blocks of a visual tower, and what later blocks must know of it."""

from collections.abc import Callable
from typing import Any, Optional, cast

from torch import Tensor, nn

from ..hosts import AttentionContext, Host, WholeGrid
from ..ops.grid import Grid
from .segments import SegmentClustering
from .twins import with_parts


class ClusteringStep(nn.Module):
    """A clustering with what it must know of one forward pass.

    Args:
        clustering: what is done to the tokens.
        videos: B.
        mask: [B, T] bool, True where a frame, or segment of the step before, is real; None if all are.
        host: between whose blocks it stands.
        counting: whether to count the tokens that each token stands for.
        previous: the step before.

    Attributes:
        done: whether it has run.
    """

    def __init__(
        self,
        clustering: SegmentClustering,
        videos: int,
        mask: Tensor | None,
        host: Host,
        counting: bool,
        previous: Optional['ClusteringStep'],
    ) -> None:
        super().__init__()
        self.clustering = clustering
        self.videos, self.mask, self.host = videos, mask, host
        self.counting = counting
        self.sizes: Any = None
        self.context: AttentionContext | None = None
        self.done = False
        # Rows and columns of a frame's patches, None where they stand on no grid; whether any were left out.
        self.grid: Grid | None = None
        self.dropped = False
        # No submodule: the tower's list has it.
        self._previous = (previous,)

    def see_entry(self, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """In the place of the call of the host's entry, which tells the grid: of the first step alone."""
        output = forward(*args, **kwargs)
        self.grid = self.host.grid(args, kwargs, output)
        return output

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        tokens = self.host.tokens(x).unflatten(0, (self.videos, -1))
        (previous,), prefix = self._previous, self.host.num_prefix_tokens
        if previous is None:
            self.dropped = tokens.shape[2] != WholeGrid(prefix, self.grid).count
        else:
            self.grid, self.dropped = None if previous.clustering.selects else previous.grid, previous.dropped
        if self.dropped and self.clustering.needs_all_patches:
            raise ValueError(f'{self.clustering} needs all patches in place: set patch_dropout=0')
        given = (tokens, self.mask, prefix, None if self.dropped else self.grid)
        layout, bias = WholeGrid(prefix, None), None
        if self.counting:
            tokens, self.sizes = self.clustering(*given, previous and previous.sizes, return_sizes=True)
            bias = self.sizes.flatten(0, 1).log()
        else:
            tokens = self.clustering(*given)
        self.context, self.done = AttentionContext(layout, bias), True
        return self.host.with_tokens(x, tokens.flatten(0, 1), layout)

    def around(self, index: int, first: bool, block: nn.Module) -> nn.Module:
        """A later block, with attention that counts tokens, or with shifts, if the clustering wants it.

        Args:
            index: of the block.
            first: whether it is the first after the step.
        """
        if self.clustering.shifts_within:
            return _ShiftingBlock(block, self, first)
        return _CountingBlock(index, block, self) if self.clustering.size_bias else block

    def shift(self, x: Any) -> Any:
        """A block's input, or what it is within a block, with its class tokens shifted once more."""
        prefix = self.host.num_prefix_tokens
        tokens = self.clustering(self.host.tokens(x).unflatten(0, (self.videos, -1)), self.mask, prefix)
        return self.host.with_tokens(x, tokens.flatten(0, 1), WholeGrid(prefix, None))


class _CountingBlock(nn.Module):
    def __init__(self, index: int, block: nn.Module, step: ClusteringStep) -> None:
        super().__init__()
        self.index, self.block, self.step = index, block, step

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return self.step.host.call(self.index, self.block, x, args, kwargs, cast(AttentionContext, self.step.context))


class _ShiftingBlock(nn.Module):
    """A block whose class token is shifted before attention, if the step hasn't done it, and again before the MLP."""

    def __init__(self, block: nn.Module, step: ClusteringStep, first: bool) -> None:
        super().__init__()
        parts = step.host.sublayers(block)
        norm = None if parts is None else parts.mlp_norm
        if norm is None:
            raise ValueError(f'token_shift_blocks does not know where {type(block).__name__} has its MLP')
        self.name = next(name for name, part in block.named_modules() if part is norm)
        self.block, self.step, self.first = block, step, first

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        norm = _ShiftedNorm(self.block.get_submodule(self.name), self.step)
        out = with_parts(self.block, {self.name: norm})(x if self.first else self.step.shift(x), *args, **kwargs)
        # The block has added the MLP's output to what its norm was given, which was not shifted.
        return out + norm.moved


class _ShiftedNorm(nn.Module):
    def __init__(self, norm: nn.Module, step: ClusteringStep) -> None:
        super().__init__()
        self.norm, self.step, self.moved = norm, step, None

    def forward(self, x: Tensor) -> Tensor:
        shifted = self.step.shift(x)
        self.moved = shifted - x
        return self.norm(shifted)
