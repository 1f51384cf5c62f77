"""What settings will cost, worked out from what each block costs with all tokens and with few."""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..attach import attach, only_host
from ..hosts import Host
from ..ops.grid import Grid, pair
from ..reducers import Reduced, Reducer
from .macs import counting_macs


@dataclass(frozen=True)
class Sites:
    """Where a reducer may act in a host on inputs of one size, and what blocks cost there.

    Attributes:
        grids: that a reducer is given before each block, None where it could not act.
        ends: for each block, the number of blocks until tokens that were reduced before it must be whole again.
        relative_positions: whether the host needs tokens on a grid.
        prefix: tokens that are never merged.
        total: MACs of the full model.
        costs: of each block, MACs for each token, and for each pair of them.
    """

    grids: tuple[Grid | None, ...]
    ends: tuple[int, ...]
    relative_positions: bool
    prefix: int
    total: float
    costs: tuple[tuple[float, float], ...]

    @property
    def depth(self) -> int:
        return len(self.grids)

    def grid(self, place: int) -> Grid:
        """That before a block where a reducer can act."""
        return cast(Grid, self.grids[place])

    def share(self, reducer: Reducer) -> float:
        """MACs with this reducer as a part of the full model's, without what merging itself takes."""
        full = [0 if grid is None else grid[0] * grid[1] for grid in self.grids]
        left = list(full)
        for stage in reducer.stages():
            after = cast(int, stage.after)
            for block in range(after, self.ends[after]):
                left[block] = stage.left(left[block])
        saved = sum(
            self._cost(block, many) - self._cost(block, few)
            for block, (many, few) in enumerate(zip(full, left))
            if few != many
        )
        return 1 - saved / self.total

    def _cost(self, block: int, tokens: int) -> float:
        each, pair = self.costs[block]
        return each * (tokens + self.prefix) + pair * (tokens + self.prefix) ** 2


def find_sites(model: nn.Module, inputs: Tensor, look: Callable[[nn.Module, Tensor], Any]) -> Sites:
    """Looks where a reducer may act, and counts what blocks cost, in three runs of the model.

    On the meta device, where nothing is computed, unless shapes depend on what is seen.

    Raises:
        ValueError: no known backbone, several of them, or the model can't run or does not run it.
    """
    only_host(model)
    try:
        return _find_sites(copy.deepcopy(model).to('meta'), inputs.to('meta'), look)
    except (NotImplementedError, RuntimeError):
        pass
    try:
        return _find_sites(model, inputs, look)
    except (RuntimeError, TypeError) as error:
        what = f'{tuple(inputs.shape)}, {str(inputs.dtype).removeprefix("torch.")} on {inputs.device}'
        reason = str(error).strip().partition('\n')[0]
        raise ValueError(f'{type(model).__name__} cannot run on inputs of {what}: {reason}') from error


@torch.no_grad()
def _find_sites(model: nn.Module, inputs: Tensor, look: Callable[[nn.Module, Tensor], Any]) -> Sites:
    host = only_host(model)
    every = tuple(range(len(host.blocks)))
    probe = _Probe(every)
    with warnings.catch_warnings(), attach(model, probe):
        warnings.simplefilter('ignore')  # it reduces nothing, which would be told
        look(model, inputs)
    if not probe.seen:
        raise ValueError(f'{host.path or type(model).__name__} never ran on what it was given: nothing can be measured')
    grids, ends = tuple(probe.seen.get(block) for block in every), tuple(map(host.region_end, every))
    begins = tuple(block for block in every if grids[block] and (block == 0 or ends[block] != ends[block - 1]))
    total, many = _count(host, model, inputs, look)
    few = many
    if begins:
        with attach(model, _Probe(begins, halves=True)):
            _, few = _count(host, model, inputs, look)
    prefix = host.num_prefix_tokens
    costs = [_solve(grid, prefix, *each) if grid else (0.0, 0.0) for grid, *each in zip(grids, many, few)]
    return Sites(grids, ends, host.relative_positions, prefix, total, tuple(costs))


def _count(host: Host, model: nn.Module, inputs: Tensor, look: Callable) -> tuple[int, list[int]]:
    """MACs of a run, and of each block in it."""
    begun, blocks = {}, [0] * len(host.blocks)
    with counting_macs() as count:

        def begin(module: nn.Module, args: tuple) -> None:
            begun[module] = count()

        def end(module: nn.Module, args: tuple, output: Any) -> None:
            blocks[places[module]] += count() - begun[module]

        places = {block: place for place, block in enumerate(host.blocks)}
        handles = [block.register_forward_pre_hook(begin) for block in host.blocks]
        handles += [block.register_forward_hook(end) for block in host.blocks]
        try:
            look(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return count(), blocks


def _solve(grid: Grid, prefix: int, many: int, few: int) -> tuple[float, float]:
    """MACs for each token and each pair, from those with all tokens of a grid and with half its sides."""
    counts = [a * b + prefix for a, b in (grid, _half(grid))]
    if counts[0] == counts[1] or many == few:
        return 0.0, 0.0
    each, pair = np.linalg.solve([[n, n * n] for n in map(float, counts)], [float(many), float(few)])
    return float(each), float(pair)


def _half(grid: Grid) -> Grid:
    return pair(max(1, side // 2) for side in grid)


@dataclass(frozen=True)
class _Probe(Reducer):
    """Notes the grids that it is given; reduces nothing, or to half the sides by leaving tokens out."""

    restores = 'update'

    after: Any
    grid: Grid = (1, 1)
    halves: bool = False
    seen: dict[int, Grid | None] = dataclasses.field(default_factory=dict, repr=False)

    def stages(self) -> tuple[Reducer, ...]:
        return tuple(dataclasses.replace(self, after=place) for place in self.after)

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        self.seen[self.after] = grid
        if not self.halves or grid is None or _half(grid) == tuple(grid):
            return None
        rows, columns = _half(grid)
        labels = torch.zeros(tokens.shape[:2], dtype=torch.int64, device=tokens.device)
        return Reduced(tokens[:, : rows * columns], labels, tokens, (rows, columns))

    def restore(self, tokens: Tensor, record: Tensor) -> Tensor:
        return record
