"""Joins one reducer to one host."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import Attachment, attached, forget_compiled
from .hosts import FAMILIES, AttentionContext, Host, Layout, find_hosts
from .reducers import Reduced, Reducer

Grid = tuple[int, int]


def attach(model: nn.Module, reducer: Reducer) -> Attachment:
    """Puts a reducer into a model that has one known backbone. Nothing of the model is changed but for hooks.

    Args:
        model: a model or its backbone; one with several backbones is an error that lists them: pass the submodule.
        reducer: for instance `Hourglass(after=10, grid=28)`.

    Returns:
        the attachment; `remove()` it, or use it as a context manager.

    Raises:
        ValueError: no known backbone, several of them, settings that don't fit it, or something attached already.
    """
    if not isinstance(reducer, Reducer):
        raise ValueError(f'reducer={reducer!r} must be a reducer, for instance fewtokens.Hourglass(after=10, grid=28)')
    return Reduction(_only_host(model), reducer)


def supported(model: nn.Module) -> str:
    """Says what `attach` would find in the model, and which settings fit. Changes nothing."""
    hosts = find_hosts(model)
    if not hosts:
        return _nothing_found(model)
    lines = []
    for host in hosts:
        depth, grid, where = len(host.blocks), host.nominal_grid, host.path or type(host.backbone).__name__
        until = f"'backbone' or 'head' ({host.head.name})" if host.head else "'backbone'"
        lines += [
            f'{where}: {host.family}, {depth} blocks, {grid[0]} x {grid[1]} {host.grid_is}, '
            f'{host.num_prefix_tokens} prefix tokens, outputs after blocks {", ".join(str(t + 1) for t in host.taps)}',
            f'  after: 0 to {depth - 1}; grid: up to {grid}; until: {until}',
        ]
        if host.relative_positions:
            lines.append('  relative positions: methods that keep a grid')
    return '\n'.join(lines)


def _only_host(model: nn.Module) -> Host:
    hosts = find_hosts(model)
    if not hosts:
        raise ValueError(_nothing_found(model))
    if len(hosts) > 1:
        found = ', '.join(f'{host.path!r} ({host.family})' for host in hosts)
        raise ValueError(
            f'{type(model).__name__} has {len(hosts)} backbones: {found}; attach to model.get_submodule(…)'
        )
    return hosts[0]


def _nothing_found(model: nn.Module) -> str:
    return f'{type(model).__name__} has no known backbone; known are: {", ".join(FAMILIES)}'


@dataclass(frozen=True)
class _Level:
    """What one stage of a reducer made in a forward pass."""

    reduced: Reduced
    before: Layout
    after: Layout
    counts: tuple[int, int]
    """Tokens of an image before and after."""

    def only_map(self) -> '_Level':
        """Without what would keep a pass's features in memory."""
        return dataclasses.replace(self, reduced=Reduced(None, self.reduced.labels, None))


@dataclass
class _Pass:
    """One forward pass of the backbone."""

    training: bool
    """Gradients were on when it began: a checkpointed block may run again after it ended."""
    grid: Grid | None = None
    levels: dict[int, _Level] = field(default_factory=dict)
    """What each stage made, by its number."""
    waiting: dict[int, Tensor] = field(default_factory=dict)
    """Reduced tokens for the block of that index, whose own input was restored for the caller."""
    final: Tensor | None = None
    """Reduced tokens at the backbone's end, for a head that works on them."""


class Reduction(Attachment):
    """A reducer at work in a host. Made by `attach`.

    Attributes:
        passes: forward passes of the backbone in which tokens were reduced.
        skipped: forward passes with too few tokens for it, which went through as they were.
        input_shape: of the backbone's last input.
    """

    def __init__(self, host: Host, reducer: Reducer) -> None:
        super().__init__()
        self.host = host
        self.reducer = reducer.with_defaults(host.defaults)
        self.passes = self.skipped = 0
        self.input_shape: torch.Size | None = None
        self._stages = self.reducer.stages()
        self._head = self._pick_head()
        self._check()
        self._pass: _Pass | None = None
        self._last: _Pass | None = None
        self._unfinished = 0
        self._recomputed = False
        self._place_hooks()
        forget_compiled()

    def __getstate__(self) -> dict[str, Any]:
        # Tensors of a pass under way belong to its graph: a copy starts afresh.
        return {**self.__dict__, '_pass': None, '_last': None, '_unfinished': 0}

    @property
    def cluster_map(self) -> Tensor | None:
        """[B, H, W] int64: which of the last stage's tokens each token of the last reduced pass went into."""
        if self._last is None:
            return None
        levels = self._last_levels()
        labels = None
        for level in levels:
            located = level.before.locate(level.reduced.labels, level.after)
            labels = located if labels is None else located.gather(1, labels)
        return labels.unflatten(1, levels[0].before.extent)

    @property
    def token_counts(self) -> tuple[int, int]:
        """Tokens before the first stage and after the last, in the last reduced pass."""
        levels = self._last_levels()
        return levels[0].counts[0], levels[-1].counts[1]

    def _last_levels(self) -> list[_Level]:
        """Of the last reduced pass, those that nest in its last one."""
        index = self._stages[max(self._last.levels)].after
        return [self._last.levels[number] for number in self._active(self._last, index)]

    def summary(self) -> str:
        host = self.host
        where = host.path or type(host.backbone).__name__
        restored = self._head.name if self._head else 'the backbone'
        lines = [f'{self.reducer}', f'  on {where}: {host.family}, {len(host.blocks)} blocks; restored in {restored}']
        lines.append('  after block | tokens before | tokens after')
        levels = self._last.levels if self._last else {}
        for number, stage in enumerate(self._stages):
            before, after = levels[number].counts if number in levels else '??'
            lines.append(f'  {stage.after:11} | {before:>13} | {after:>12}')
        if not self._last:
            height, width = host.nominal_grid
            lines.append(f'  no forward pass yet; {height} x {width} {host.grid_is}')
        lines.append(f'  passes with fewer tokens: {self.passes}, unchanged: {self.skipped}')
        return '\n'.join(lines)

    # What is put on the host

    def _pick_head(self) -> Any:
        until = getattr(self.reducer, 'until', 'backbone')
        if until == 'head' and self.host.head is None:
            raise ValueError(
                "until='head' needs a head that works token by token on the backbone's last output (Segmenter's); "
                "there is none here: until='backbone' fits"
            )
        return None if until == 'backbone' else self.host.head

    def _check(self) -> None:
        host, depth = self.host, len(self.host.blocks)
        if any(isinstance(other, Reduction) for other in attached(host.backbone)):
            raise ValueError(f'{host.path or "the model"} has a reducer attached already: remove() it first')
        for stage in self._stages:
            if stage.after >= depth:
                raise ValueError(f'after={stage.after} must be between 0 and {depth - 1}: there are {depth} blocks')
        if not host.taps:
            raise ValueError(f'no output of {host.path or "the model"} comes from its blocks: nothing would be gained')
        if host.relative_positions:
            if not self.reducer.keeps_grid:
                raise ValueError(
                    f'{type(self.reducer).__name__} leaves tokens on no grid, which the relative positions of '
                    f'{host.family} need: Hourglass, SharedUpdate and AvgPool keep one'
                )
            for stage in self._stages:
                if any(few > many for few, many in zip(stage.grid, host.nominal_grid)):
                    raise ValueError(f'grid={stage.grid} must be at most {host.nominal_grid}, {host.grid_is}')

    def _place_hooks(self) -> None:
        host, keep = self.host, self._handles.append
        keep(host.backbone.register_forward_pre_hook(self._begin))
        keep(host.backbone.register_forward_hook(self._end))
        if host.grid_source is not None:
            keep(host.grid_source.register_forward_hook(self._note_grid))
        regions = [range(stage.after, host.region_end(stage.after)) for stage in self._stages]
        for index, block in enumerate(host.blocks):
            if not any(index in region for region in regions):
                continue
            keep(block.register_forward_pre_hook(self._before_block))
            keep(block.register_forward_hook(self._after_block))
            self._handles += host.place_attention(block, _BlockContext(self, index))
        if host.norm is not None:
            keep(host.norm.register_forward_hook(self._after_norm))
        if self._head is not None:
            keep(self._head.entry.register_forward_pre_hook(self._enter_head))
            keep(self._head.exit.register_forward_hook(self._leave_head))

    # A forward pass

    def _begin(self, module: nn.Module, args: tuple) -> None:
        training = torch.is_grad_enabled()
        self._unfinished = (0 if self._recomputed else self._unfinished) + training
        self._recomputed = False
        self._pass = _Pass(training)
        if args and isinstance(args[0], Tensor):
            self.input_shape = args[0].shape

    def _note_grid(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._pass is not None:
            self._pass.grid = self.host.grid_of(output)

    def _before_block(self, module: nn.Module, args: tuple) -> tuple | None:
        state = self._pass
        if state is None:
            return None
        index = self.host.blocks.index(module)
        tokens = state.waiting.get(index, args[0])
        entered = [number for number in self._active(state, index) if self._stages[number].after < index]
        layout = state.levels[entered[-1]].after if entered else self.host.layout(args, state.grid)
        for number, stage in enumerate(self._stages):
            if stage.after == index:
                tokens, layout = self._reduce(state, number, tokens, layout)
        return self.host.arguments(tokens, layout, args)

    def _active(self, state: _Pass, index: int) -> list[int]:
        """Numbers of the stages that have reduced the tokens which the block of that index works on."""
        stages = self._stages
        return [n for n in sorted(state.levels) if stages[n].after <= index < self.host.region_end(stages[n].after)]

    def _reduce(self, state: _Pass, number: int, tokens: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        stage = self._stages[number]
        earlier = [state.levels[n].reduced.sizes for n in self._active(state, stage.after) if n < number]
        prefix, of_grid = layout.split(tokens)
        reduced = stage.reduce(of_grid, layout.grid, earlier[-1] if earlier else None)
        if reduced is None:
            return tokens, layout
        after = layout.reduced(reduced.grid)
        merged = after.join(prefix, reduced.tokens)
        counts = tuple(each.shape[1] - layout.num_prefix_tokens for each in (tokens, merged))
        state.levels[number] = _Level(reduced, layout, after, counts)
        return merged, after

    def _after_block(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        state = self._pass
        index = self.host.blocks.index(module)
        if state is None or index not in self.host.taps or not self._active(state, index):
            return None
        if index + 1 == self.host.region_end(index):
            # States are restored after the norm, which works token by token: on fewer of them.
            after_norm = self.host.norm is not None and self.reducer.restores == 'state'
            return None if after_norm else self._finish(state, index, output)
        if state.training and not torch.is_grad_enabled():
            raise RuntimeError(
                'a block with an output of its own runs under reentrant activation checkpointing, where its gradient '
                'would be lost: use checkpoint(…, use_reentrant=False)'
            )
        state.waiting[index + 1] = output
        return self._restore(state, index, output)

    def _after_norm(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        state, last = self._pass, len(self.host.blocks) - 1
        if state is None or not state.levels or last not in self.host.taps or self.reducer.restores != 'state':
            return None
        return self._finish(state, last, output)

    def _finish(self, state: _Pass, index: int, output: Tensor) -> Tensor:
        if self._head is not None:
            state.final = state.levels[max(state.levels)].after.split(output)[1]
        return self._restore(state, index, output)

    def _restore(self, state: _Pass, index: int, tokens: Tensor) -> Tensor:
        for number in reversed(self._active(state, index)):
            level = state.levels[number]
            prefix, tokens = level.after.split(tokens)
            tokens = level.before.join(prefix, self._stages[number].restore(tokens, level.reduced.record))
        return tokens

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        state = self._pass
        if state.levels:
            self.passes += 1
            self._last = _Pass(False, state.grid, {number: level.only_map() for number, level in state.levels.items()})
        else:
            self._warn_skipped(state.grid)
        if not state.training and self._head is None:
            self._pass = None

    def _warn_skipped(self, grid: Grid | None) -> None:
        self.skipped += 1
        if self.skipped == 1:
            warnings.warn(
                f'an input of {grid[0]} x {grid[1]} tokens has too few of them for {self.reducer}: it went through '
                'unchanged, as will others like it',
                stacklevel=2,
            )

    def _enter_head(self, module: nn.Module, args: tuple) -> tuple | None:
        state = self._pass
        if state is None or state.final is None:
            return None
        # A head may be called with other tokens than those that left the backbone in this pass.
        if args[0].shape[:2] != (len(state.final), state.grid[0] * state.grid[1]):
            return None
        return (state.final, *args[1:])

    def _leave_head(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        state = self._pass
        if state is None or state.final is None or output.shape[:2] != state.final.shape[:2]:
            return None
        for number in sorted(state.levels, reverse=True):
            output = self._stages[number].restore(output, state.levels[number].reduced.record)
        return output

    # What attention asks

    def attention_context(self, index: int) -> AttentionContext | None:
        """For the block of that index: None while its tokens are not reduced."""
        state = self._pass
        if state is None:
            return None
        if state.training and torch._C._current_graph_task_id() != -1:
            self._refuse_several_passes()
        active = self._active(state, index)
        if not active:
            return None
        level, stage = state.levels[active[-1]], self._stages[active[-1]]
        counted = level.reduced.sizes is not None and stage.size_bias
        return AttentionContext(level.after, level.reduced.sizes.log() if counted else None)

    def _refuse_several_passes(self) -> None:
        # A block that runs again in backward finds the last forward pass alone.
        self._recomputed = True
        if self._unfinished > 1:
            raise RuntimeError(
                f'{self._unfinished} forward passes came before this backward pass: activation checkpointing with '
                'fewer tokens works with one. Run backward after each, or switch checkpointing (with_cp) off'
            )


@dataclass
class _BlockContext:
    """Tells a block's attention its context. An object, not a closure: it can be copied and pickled."""

    reduction: Reduction
    index: int

    def __call__(self) -> AttentionContext | None:
        return self.reduction.attention_context(self.index)
