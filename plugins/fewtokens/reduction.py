"""A reducer at work in a host."""

import dataclasses
import threading
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from .attachment import Attachment, attached, forget_compiled, refuse_replica, refuse_sharded_training
from .current import Current
from .hosts import (
    AttentionContext,
    Host,
    Layout,
    Members,
    ReplacedCall,
    Spread,
    SpreadActivation,
    SpreadNorm,
)
from .hosts.middle import Middle
from .levels import Level, Pass
from .ops.backend import is_plain_call
from .ops.compiling import while_compiling
from .ops.grid import Grid
from .ops.labels import mean_by_label
from .reducers import Reduced, Reducer
from .stand_ins import BlockContext, Inside, Replacement, Seat, Way
from .trained import TrainedPasses

_COUNTING = threading.Lock()


class Reduction(Attachment):
    """A reducer at work in a host. Made by `attach`. Threads and tasks may share it: each has passes of its own.

    Attributes:
        passes: forward passes of the backbone in which tokens were reduced. Compiled code counts once, when it is
            compiled.
        skipped: forward passes with too few tokens for it, which went through as they were.
    """

    def __init__(self, host: Host, reducer: Reducer) -> None:
        super().__init__()
        self.host = host
        self.reducer = reducer.with_defaults(host.defaults)
        self.passes = self.skipped = 0
        self._stages: dict[int, Reducer] = {cast(int, stage.after): stage for stage in self.reducer.stages()}
        self._inside = frozenset(self._stages if self.reducer.inside_blocks else ())
        self._before = frozenset(self._stages) - self._inside
        self._head = self._pick_head()
        self._check()
        self._norms = host.norm is not None and self.reducer.restores != 'update'
        last = len(host.blocks) - 1
        # Of the last block, the caller sees what comes out of the norm.
        self._taps = None if host.taps is None else frozenset(host.taps) - ({last} if host.norm is not None else set())
        # For each block, the stages that may have reduced its tokens, the innermost first.
        self._ends = {after: self._end_of(after) for after in sorted(self._stages, reverse=True)}
        self._possible = [
            [after for after, end in self._ends.items() if after <= index < end] for index in range(last + 1)
        ]
        self._last_block = max(self._ends.values()) - 1
        named = host.backbone.named_modules()
        self._path_to_last = next((path for path, module in named if module is host.blocks[self._last_block]), None)
        self._current, self._seen, self._in_head = Current(), Current(), Current()
        self._last: dict[int, Level] = {}
        self._trained = TrainedPasses()
        self._replace_calls()
        forget_compiled()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_last': {}}

    @property
    def cluster_map(self) -> Tensor | None:
        """[B, H, W] int64: which of the last stage's tokens each token of the last reduced pass went into."""
        levels, labels = self._last_levels(), None
        for level in levels:
            located = level.before.locate(level.reduced.labels, level.after)
            labels = located if labels is None else located.gather(1, labels)
        return None if labels is None else labels.unflatten(1, levels[0].before.extent)

    @property
    def token_counts(self) -> tuple[int, int] | None:
        """Tokens before the first stage and after the last, in the last reduced pass."""
        levels = self._last_levels()
        return (levels[0].counts[0], levels[-1].counts[1]) if levels else None

    def _last_levels(self) -> list[Level]:
        """Of the last reduced pass, those that nest in its last one, outermost first."""
        levels = self._last
        return list(levels[max(levels)].outermost_first()) if levels else []

    def summary(self) -> str:
        host, levels = self.host, self._last
        where = host.path or type(host.backbone).__name__
        restored = self._head.name if self._head else 'the backbone'
        lines = [f'{self.reducer}', f'  on {where}: {host.family}, {len(host.blocks)} blocks; restored in {restored}']
        lines.append('  after block | tokens before | tokens after')
        for first in self._stages:
            before, after = levels[first].counts if first in levels else '??'
            lines.append(f'  {first:11} | {before:>13} | {after:>12}')
        if not levels:
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
        return self.host.head if until in ('auto', 'head') else None

    def _end_of(self, after: int) -> int:
        """The number of blocks until tokens reduced before that block must be whole again."""
        until = getattr(self.reducer, 'until', 'backbone')
        return until if isinstance(until, int) else self.host.region_end(after)

    def _check(self) -> None:
        host, depth = self.host, len(self.host.blocks)
        if any(isinstance(other, Reduction) for other in attached(host.backbone)):
            raise ValueError(f'{host.path or "the model"} has a reducer attached already: remove() it first')
        for after in self._stages:
            if after >= depth:
                raise ValueError(f'after={after} must be between 0 and {depth - 1}: there are {depth} blocks')
            until, end = self._end_of(after), host.region_end(after)
            if until > end:
                raise ValueError(f'until={until} must be at most {end}, where tokens reduced after {after} end')
        if host.taps == ():
            raise ValueError(f'no output of {host.path or "the model"} comes from its blocks: nothing would be gained')
        if host.relative_positions:
            if not self.reducer.keeps_grid:
                raise ValueError(
                    f'{type(self.reducer).__name__} leaves tokens on no grid, which the windows or relative positions '
                    f'of {host.family} need: Hourglass, SharedUpdate and AvgPool keep one'
                )
            for stage in self._stages.values():
                if any(few > many for few, many in zip(stage.grid, host.nominal_grid)):
                    raise ValueError(f'grid={stage.grid} must be at most {host.nominal_grid}, {host.grid_is}')
        found = [host.middle(host.blocks[index]) for index in self._inside]
        middles = [middle for middle in found if middle is not None]
        if len(middles) < len(found):
            raise ValueError(
                f'{type(self.reducer).__name__} merges between attention and MLP, whose places in the blocks of '
                f"{host.family} aren't known: BipartiteMerge does without"
            )
        if not all(middle.reads_weights for middle in middles):
            raise ValueError(
                f"{type(self.reducer).__name__} reads the weights of attention's keys, and those of "
                f'{host.path or "the model"} are quantised: BipartiteMerge does without'
            )

    def _replace_calls(self) -> None:
        """Calls, not hooks: compiled code looks whether a call was replaced, and not whether there are hooks."""
        host, handles = self.host, self._handles
        handles.append(host.entry.register_forward_pre_hook(self._see_entry))
        handles.append(ReplacedCall(host.entry, Replacement(self._begin)))
        for way in host.ways:
            handles.append(ReplacedCall(host.backbone, Way(self, way), name=way))
        regions = [range(*region) for region in self._ends.items()]
        for index, block in enumerate(host.blocks):
            if any(index in region for region in regions):
                handles.append(Seat(block, self, index))
                handles += host.place_attention(block, BlockContext(self, index))
                if index in self._inside:
                    handles += Inside(self, index, cast(Middle, host.middle(block))).place()
                if any(stage.spread for stage in self._stages.values()):
                    handles += self._place_spread(block, BlockContext(self, index))
        if self._norms:
            handles.append(ReplacedCall(host.norm, Replacement(self._run_norm)))
        if self._head is not None:
            handles.append(ReplacedCall(host.backbone, Replacement(self._run_backbone)))
            handles.append(ReplacedCall(self._head.module, Replacement(self._run_head)))
            handles.append(ReplacedCall(self._head.entry, Replacement(self._enter_head)))
            handles.append(ReplacedCall(self._head.exit, Replacement(self._leave_head)))

    def _place_spread(self, block: nn.Module, context: BlockContext) -> list[ReplacedCall]:
        parts = self.host.sublayers(block)
        if parts is None:
            return []
        handles = [ReplacedCall(parts.norm, SpreadNorm(context, self.host.with_tokens))]
        if parts.activation is not None:
            replacement = SpreadActivation(context, parts.linear, parts.mlp_norm)
            handles.append(ReplacedCall(parts.activation, replacement))
        return handles

    def _see_entry(self, module: nn.Module, args: tuple) -> None:
        refuse_replica(module)
        refuse_sharded_training(self.host.blocks)
        if not (torch.compiler.is_dynamo_compiling() or self._path_to_last is None):
            self._refuse_cut()

    def _refuse_cut(self) -> None:
        """Where the last of the blocks attached to is gone, nothing would make the tokens whole."""
        last = self.host.blocks[self._last_block]
        try:
            found = self.host.backbone.get_submodule(cast(str, self._path_to_last))
        except AttributeError:
            found = None
        # It may have been wrapped since.
        if found is None or all(module is not last for module in found.modules()):
            where = self.host.path or type(self.host.backbone).__name__
            raise RuntimeError(f'the blocks of {where} are others than those attached to: remove() and attach anew')

    # A forward pass

    def go(self, way: str, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the backbone that knows which blocks' outputs its caller sees."""
        before = self._seen.get()
        self._seen.set(frozenset(self.host.seen(way, args, kwargs)))
        try:
            return forward(*args, **kwargs)
        finally:
            self._seen.set(before)
            state = self._current.get()
            if state is not None:
                self._end(state)

    def _begin(self, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        _refuse_symbolic(*args, *kwargs.values())
        grid, training = self.host.grid(args, kwargs, output), torch.is_grad_enabled()
        seen = self._seen.get() if self._taps is None else self._taps
        if torch.compiler.is_dynamo_compiling():
            state = Pass(grid, seen, training)
        else:
            state = Pass(grid, seen, training, threading.get_ident(), torch._C._current_graph_task_id())
            self._trained.begin(state)
        self._current.set(state)
        return output

    def _state(self) -> Pass | None:
        state = self._current.get()
        if torch.compiler.is_dynamo_compiling():
            return _refuse_in_backward() if state is None else state
        backward = torch._C._current_graph_task_id()
        if backward == -1 or (state is not None and state.backward == backward):
            return state
        return self._trained.find(backward)

    def run_block(self, index: int, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Calls a block with the tokens that are due, and returns those that its caller expects."""
        _refuse_symbolic(*args, *kwargs.values())
        state = self._state()
        if state is None:
            return forward(*args, **kwargs)
        host = self.host
        value, rest, named = (args[0], args[1:], kwargs) if args else _take_named(host.argument, kwargs)
        level = self._level(state, index, before=True)
        if index in self._inside:
            # Of a run before, when a checkpointed block runs again.
            state.levels.pop(index, None)
        if index in self._before or index in state.waiting:
            level, value = self._prepare(state, index, value, rest, named, level)
        if level is None and index not in self._inside:
            return forward(*args, **kwargs)
        if state.training and not torch.is_grad_enabled():
            raise RuntimeError(
                'a block with fewer tokens runs under reentrant activation checkpointing, where gradients would be '
                'lost: use checkpoint(…, use_reentrant=False)'
            )
        if level is None:
            output = forward(*args, **kwargs)
        else:
            output = host.call(index, forward, value, rest, named, cast(AttentionContext, level.context))
        merged = state.levels.get(index) if index in self._inside else None
        if merged is not None:
            level, output = merged, host.with_tokens(output, merged.merge(host.tokens(output)), merged.after)
        return output if level is None else self._leave_block(state, index, level, output)

    def _level(self, state: Pass, index: int, before: bool = False) -> Level | None:
        """Whose tokens a block works on, or before they are reduced for it; None if they are whole."""
        for after in self._possible[index]:
            if after in state.levels and not (before and after == index):
                return state.levels[after]
        return None

    def _prepare(
        self, state: Pass, index: int, value: Any, rest: tuple, named: dict[str, Any], level: Level | None
    ) -> tuple[Level | None, Any]:
        """A block's first argument with the tokens that are due, reduced if it is time."""
        tokens = state.waiting[index] if index in state.waiting else self.host.tokens(value)
        if level is None:
            layout = self.host.layout(index, rest, named, state.grid)
            _check_count(tokens, layout)
        else:
            layout = level.after
        if index in self._before:
            level, tokens = self._reduce(state, index, tokens, layout, level)
        return level, value if level is None else self.host.with_tokens(value, tokens, level.after)

    def _reduce(
        self, state: Pass, index: int, tokens: Tensor, layout: Layout, outer: Level | None
    ) -> tuple[Level | None, Tensor]:
        stage = self._stages[index]
        prefix, of_grid = layout.split(tokens)
        keys = dict(keys=layout.split(state.keys.pop(index))[1]) if index in self._inside else {}
        reduced = stage.reduce(of_grid, layout.grid, None if outer is None else outer.reduced.sizes, **keys)
        if is_plain_call([of_grid]) and not self.passes:
            self._warn_of_misfit(stage, of_grid, layout)
        if reduced is None:
            if index == max(self._stages) and not state.levels:
                self._note_skipped(state, layout)
            return outer, tokens
        after = layout.reduced(reduced.grid)
        merged = after.join(prefix, reduced.tokens)
        counts = tuple(each.shape[1] - layout.num_prefix_tokens for each in (tokens, merged))
        counted = reduced.sizes if stage.size_bias else None
        of_outer = None if outer is None or outer.context is None else outer.context.members
        members = Members(reduced.labels, reduced.tokens.shape[1], layout.grid, reduced.grid, of_outer)
        reduced = _with_whole_spreads(reduced, outer)
        spread = None if reduced.spreads is None else Spread(after.per_token(reduced.spreads))
        bias = None if counted is None else after.per_token(counted.log())
        context = AttentionContext(after, bias, members, spread)
        level = state.levels[index] = Level(stage, reduced, layout, after, self._ends[index], counts, outer, context)
        self._note_reduced(state, index, level)
        return level, merged

    # What is told of the middle of a block

    def compare_inside(self, index: int, keys: Tensor) -> None:
        state = self._state()
        if state is not None:
            state.keys[index] = keys

    def merge_inside(self, index: int, tokens: Tensor) -> Tensor:
        state = self._state()
        if state is None:
            return tokens
        outer = self._level(state, index, before=True)
        if outer is None:
            layout = self.host.layout(index, (), {}, state.grid)
            _check_count(tokens, layout)
        else:
            layout = outer.after
        return self._reduce(state, index, tokens, layout, outer)[1]

    def expand_inside(self, index: int, tokens: Tensor) -> Tensor:
        state = self._state()
        level = None if state is None else state.levels.get(index)
        return tokens if level is None else level.expand(tokens)

    def _note_reduced(self, state: Pass, index: int, level: Level) -> None:
        if not state.counted:
            state.counted = True
            self._count_pass()
        if _is_plain(level.reduced.labels):
            state.maps[index] = level.labels_alone()
        self._last = state.maps

    def _note_skipped(self, state: Pass, layout: Layout) -> None:
        if not state.counted:
            state.counted = True
            self._count_skipped(*cast(Grid, layout.grid))

    def _warn_of_misfit(self, stage: Reducer, tokens: Tensor, layout: Layout) -> None:
        # Values are read, which nothing else in a pass does: not where a device must not be waited for.
        waits = tokens.is_cuda and (torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode())
        if tokens.is_meta or waits:
            return
        found = stage.misfit(tokens.detach(), layout.grid)
        if found is not None:
            warnings.warn(f'{type(stage).__name__}: {found}', stacklevel=2)

    # Methods: of other functions, compiled code calls none with such an argument.

    @while_compiling
    def _count_pass(self) -> None:
        with _COUNTING:
            self.passes += 1

    @while_compiling
    def _count_skipped(self, rows: int, columns: int) -> None:
        with _COUNTING:
            self.skipped += 1
            first = self.skipped == 1
        if first:
            warnings.warn(
                f'an input of {rows} x {columns} tokens has too few of them for {self.reducer}: it went through '
                'unchanged, as will others like it',
                stacklevel=2,
            )

    def _leave_block(self, state: Pass, index: int, level: Level, output: Any) -> Any:
        """A block's output as its caller expects it: whole where somebody sees it."""
        seen = state.seen is None or index in state.seen or self._is_watched(index)
        ends = index + 1 == level.end
        if not (seen or ends):
            return output
        tokens, normed = self.host.tokens(output), self._norms and index == len(self.host.blocks) - 1
        if ends and not normed:
            output = self._finish(state, level, output)
            if index == self._last_block:
                self._end(state)
            return output
        # The chain goes on with these. States are restored after the norm, which works token by token: on fewer.
        state.waiting[index + 1] = output if normed else tokens
        if seen:
            output = self.host.with_tokens(output, level.restore(tokens), level.outermost.before)
        if normed:
            state.normed = output
        return output

    def _is_watched(self, index: int) -> bool:
        """Whether somebody's hook sees a block's output."""
        blocks = self.host.blocks
        following = blocks[index + 1] if index + 1 < len(blocks) else self.host.norm
        if following is not None and following._forward_pre_hooks:
            return True
        hooks = blocks[index]._forward_hooks
        return bool(hooks) and not all(self.host.records(hook) for hook in hooks.values())

    def _run_norm(self, forward: Callable, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        state, last = self._state(), len(self.host.blocks) - 1
        if state is None or state.normed is None or tokens is not state.normed:
            return forward(tokens, *args, **kwargs)
        level = cast(Level, self._level(state, last))
        output = self._finish(state, level, forward(state.waiting[last + 1], *args, **kwargs))
        if self._seen.get() is None:  # else the norm may be called once more
            self._end(state)
        return output

    def _finish(self, state: Pass, level: Level, output: Any) -> Any:
        tokens = self.host.tokens(output)
        if self._head is not None:
            state.final = level.after.split(tokens)[1]
        return self.host.with_tokens(output, level.restore(tokens), level.outermost.before)

    def _end(self, state: Pass) -> None:
        if state.final is None:
            self._current.set(None)

    def _run_backbone(self, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        outputs, state = forward(*args, **kwargs), self._current.get()
        if state is not None and state.final is not None:
            state.outputs = tuple(outputs)
        return outputs

    def _run_head(self, forward: Callable, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """A head's call: on reduced tokens if it is given what the backbone returned in this pass, and nothing else."""
        state = self._current.get()
        known = state is not None and any(one is other for one in inputs for other in state.outputs)
        self._in_head.set(state if known else None)
        try:
            return forward(inputs, *args, **kwargs)
        finally:
            self._in_head.set(None)

    def _enter_head(self, forward: Callable, tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
        state = self._in_head.get()
        return forward(tokens if state is None else state.final, *args, **kwargs)

    def _leave_head(self, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        output, state = forward(*args, **kwargs), self._in_head.get()
        if state is None:
            return output
        return cast(Level, self._level(state, len(self.host.blocks) - 1)).restore_map(output)

    # What attention asks

    def attention_context(self, index: int) -> AttentionContext | None:
        """For the block of that index: None while its tokens are not reduced."""
        state = self._state()
        level = None if state is None else self._level(state, index)
        return None if level is None else level.context


@while_compiling
def _refuse_in_backward() -> None:
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            'a compiled block with fewer tokens runs again in backward: activation checkpointing around compiled '
            'blocks does not work with it. Compile the whole model, or switch checkpointing off'
        )


def _with_whole_spreads(reduced: Reduced, outer: Level | None) -> Reduced:
    """With the spreads of what a stage was given added to those that it made."""
    given = None if outer is None else outer.reduced
    if reduced.spreads is None or given is None or given.spreads is None:
        return reduced
    inner, _ = mean_by_label(given.spreads[..., None], reduced.labels, given.sizes, reduced.spreads.shape[1])
    return dataclasses.replace(reduced, spreads=reduced.spreads + inner[..., 0])


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor outlives what made it, as that of a trace or of `torch.func` doesn't."""
    if torch.compiler.is_dynamo_compiling():
        return True
    return type(tensor) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _refuse_symbolic(*values: Any) -> None:
    if any(isinstance(value, torch.fx.Proxy) for value in values):
        raise ValueError(
            'torch.fx, which takes models apart for their features, sees no tokens that could be reduced: register '
            'forward hooks on the blocks or stages instead'
        )


def _take_named(name: str, kwargs: dict[str, Any]) -> tuple[Any, tuple, dict[str, Any]]:
    """A call's first argument, given by name, and the others."""
    return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}


def _check_count(tokens: Tensor, layout: Layout) -> None:
    if tokens.shape[1] != layout.count:
        rows, columns = layout.extent
        prefix = f' and {layout.num_prefix_tokens} prefix tokens' if layout.num_prefix_tokens else ''
        raise ValueError(
            f'{tokens.shape[1]} tokens came where {rows} x {columns}{prefix} were due: fewer, as patch dropout leaves, '
            'stand on no grid (set it to 0)'
        )
