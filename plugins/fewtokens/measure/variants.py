"""The rows of every comparison: the host, the host with fused attention, then one row a plugin."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..plugin import Plugin, attach_plugin, kind_of, label_of
from ..sdpa import use_sdpa
from .environment import describe_environment
from .macs import count_macs, forward
from .memory import peak_mib
from .rows import Row
from .timing import Timing, time_interleaved
from .twins import twin

HOST, FUSED, HALF = 'host', 'host + sdpa', 'half resolution'


@dataclass(frozen=True)
class Variant:
    """One row: its name and what it does to the model and its inputs."""

    name: str
    reducer: Plugin | None = None
    sdpa: bool = True
    half: bool = False
    compiled: bool = False

    @property
    def kind(self) -> str:
        """Its method; of a host its name."""
        return kind_of(self.reducer) if self.reducer else self.name

    @property
    def label(self) -> str:
        """Its settings in short; empty for the hosts."""
        label = label_of(self.reducer) if self.reducer else ''
        return f'{label}, compiled' if label and self.compiled else label

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[Any]:
        """The plugin at work: its attachment, None where there is no plugin."""
        with ExitStack() as stack:
            if self.sdpa:
                stack.enter_context(use_sdpa(model))
            yield stack.enter_context(attach_plugin(model, self.reducer)) if self.reducer else None

    @contextmanager
    def prepared(self, model: nn.Module) -> Iterator[nn.Module]:
        """A twin of the model, attached to for good, since attaching throws away what is compiled; and compiled."""
        own = twin(model)
        with self.applied(own):
            if self.compiled:
                own.compile(dynamic=False)
            yield own

    def resize(self, inputs: Tensor) -> Tensor:
        if not self.half:
            return inputs
        if inputs.ndim != 4:
            raise ValueError(
                f'{HALF} is for images; a video is {tuple(inputs.shape[1:])}, at the one size of its model'
            )
        return F.interpolate(inputs, scale_factor=0.5, mode='bilinear', antialias=True)


def make_variants(plugins: dict[str, Plugin], half: bool = False, compiled: bool = False) -> list[Variant]:
    """`host`, `host + sdpa`, a row a plugin by its text; if asked for, then those but the first compiled by
    torch.compile, and at last the host at half resolution."""
    rows = [Variant(HOST, sdpa=False), Variant(FUSED)]
    rows += [Variant(text, reducer) for text, reducer in plugins.items()]
    if compiled:
        rows += [replace(row, name=f'{row.name} + compile', compiled=True) for row in rows[1:]]
    return rows + [Variant(HALF, half=True)] * half


@torch.no_grad()
def count_rows(model: nn.Module, variants: list[Variant], inputs: Tensor) -> list[Row]:
    """Rows with MACs and parameters for one image; nothing is timed.

    Raises:
        ValueError: a plugin doesn't fit the model or the inputs' size.
    """
    return [_count(model, variant, inputs) for variant in variants]


@torch.no_grad()
def benchmark_rows(
    model: nn.Module,
    variants: list[Variant],
    inputs: Tensor,
    rounds: int,
    warmup: int,
    counted: nn.Module | None = None,
) -> list[Row]:
    """Rows with MACs, parameters, milliseconds, speed-up over `host + sdpa` and peak memory, for one image each.

    MACs and parameters are those of `counted` where the model itself, as a quantised one, hides them. The peak memory
    of compiled rows isn't known.

    A row that can't run has none of them, and says why under `failure`: some hosts mix dtypes where they are not
    float32, and what they compute step by step may not fit in memory.

    Raises:
        ValueError: `host + sdpa` itself can't run, or a plugin doesn't fit the model or the inputs' size.
    """
    counted = model if counted is None else counted
    compiled = [variant for variant in variants if variant.compiled]
    failures = {}
    for variant in variants:
        with variant.applied(model):
            failures[variant.name] = _failure(model, variant.resize(inputs))
    if failures[FUSED]:
        where = f'{str(inputs.dtype).removeprefix("torch.")} on {inputs.device}'
        raise ValueError(f'{FUSED}, which all rows are compared with, cannot run in {where}: {failures[FUSED]}')
    able = [variant for variant in variants if not failures[variant.name]]
    rows = {row.name: row for row in count_rows_cheaply(counted, able, inputs)}
    for variant in able:
        if variant.compiled:
            continue
        images = variant.resize(inputs)
        with variant.applied(model):
            peak = peak_mib(partial(forward, model, images), inputs.device) / len(inputs)
        rows[variant.name] = replace(rows[variant.name], peak_mib=peak)
    with ExitStack() as stack:
        # What is attached or removed throws away all that was compiled: then each has a model of its own, for good.
        own = {v.name: stack.enter_context(v.prepared(model)) for v in able} if compiled else {}
        for variant in able:
            if variant.compiled:
                failures[variant.name] = _failure(own[variant.name], inputs)
        able = [variant for variant in able if not failures[variant.name]]
        for name, timing in _time(model, able, own, inputs, rounds, warmup).items():
            per_image = {key: getattr(timing, key) / len(inputs) for key in ('ms', 'ms_p20', 'ms_p80')}
            speed = dict(speedup=timing.speedup, speedup_p20=timing.speedup_p20, speedup_p80=timing.speedup_p80)
            rows[name] = replace(rows[name], **per_image, **speed)
    return [
        rows[v.name] if not failures[v.name] else _row(counted, v, macs=None, failure=failures[v.name])
        for v in variants
    ]


def _time(
    model: nn.Module, variants: list[Variant], own: dict[str, nn.Module], inputs: Tensor, rounds: int, warmup: int
) -> dict[str, Timing]:
    """Of each variant by name, with its own model or attached to the one of all."""
    sized = {variant.name: variant.resize(inputs) for variant in variants}
    current: list[str] = [FUSED]

    def context(variant: Variant) -> AbstractContextManager:
        current[0] = variant.name
        return nullcontext() if own else variant.applied(model)

    def call() -> Any:
        return forward(own.get(current[0], model), sized[current[0]])

    contexts: dict[str, Callable[[], AbstractContextManager]]
    contexts = {variant.name: partial(context, variant) for variant in variants}
    return time_interleaved(contexts, call, FUSED, rounds, warmup, inputs.device)


@torch.no_grad()
def count_rows_cheaply(model: nn.Module, variants: list[Variant], inputs: Tensor) -> list[Row]:
    """Rows as of `count_rows`, on the meta device where nothing is computed, unless shapes depend on what is seen."""
    try:
        return count_rows(copy.deepcopy(model).to('meta'), variants, inputs.to('meta'))
    except (NotImplementedError, RuntimeError):
        return count_rows(model, variants, inputs)


def environment_of(inputs: Tensor, **settings: Any) -> dict[str, Any]:
    shape = list(inputs.shape[2:] if inputs.ndim == 4 else inputs.shape[1:])
    described = dict(dtype=str(inputs.dtype).removeprefix('torch.'), batch=len(inputs), shape=shape)
    return describe_environment(inputs.device, **described, **settings)


def _count(model: nn.Module, variant: Variant, inputs: Tensor) -> Row:
    with variant.applied(model) as reduction:
        macs = count_macs(model, variant.resize(inputs)) // len(inputs)
        if reduction is not None and not reduction.passes:
            height, width = inputs.shape[-2:]
            raise ValueError(f'{variant.name} never takes effect: inputs of {height} x {width} have too few tokens')
    return _row(model, variant, macs)


def _row(model: nn.Module, variant: Variant, macs: int | None, failure: str | None = None) -> Row:
    params = sum(parameter.numel() for parameter in model.parameters())
    return Row(name=variant.name, kind=variant.kind, label=variant.label, macs=macs, params=params, failure=failure)


def _failure(model: nn.Module, inputs: Tensor) -> str | None:
    """Why a model can't run."""
    try:
        forward(model, inputs)
    except (RuntimeError, TypeError) as error:  # NumPy, which some hosts compute with, has no bfloat16
        reason = str(error).strip().partition('\n')[0]
        return f'{type(error).__name__}: {reason}'
    return None
