"""The rows of every comparison: the host, the host with fused attention, then one row a plugin."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attachment import Attachment
from ..plugin import Plugin, attach_plugin, kind_of, label_of
from ..sdpa import use_sdpa
from .environment import describe_environment
from .macs import count_macs, forward
from .memory import peak_mib
from .rows import Row
from .timing import time_interleaved

HOST, FUSED, HALF = 'host', 'host + sdpa', 'half resolution'


@dataclass(frozen=True)
class Variant:
    """One row: its name and what it does to the model and its inputs."""

    name: str
    reducer: Plugin | None = None
    sdpa: bool = True
    half: bool = False

    @property
    def kind(self) -> str:
        """Its method; of a host its name."""
        return kind_of(self.reducer) if self.reducer else self.name

    @property
    def label(self) -> str:
        """Its settings in short; empty for the hosts."""
        return label_of(self.reducer) if self.reducer else ''

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[Attachment | None]:
        with ExitStack() as stack:
            if self.sdpa:
                stack.enter_context(use_sdpa(model))
            yield stack.enter_context(attach_plugin(model, self.reducer)) if self.reducer else None

    def resize(self, inputs: Tensor) -> Tensor:
        if not self.half:
            return inputs
        if inputs.ndim != 4:
            raise ValueError(
                f'{HALF} is for images; a video is {tuple(inputs.shape[1:])}, at the one size of its model'
            )
        return F.interpolate(inputs, scale_factor=0.5, mode='bilinear', antialias=True)


def make_variants(plugins: dict[str, Plugin], half: bool = False) -> list[Variant]:
    """`host`, `host + sdpa`, a row a plugin by its text, and at last the host at half resolution if asked for."""
    rows = [Variant(HOST, sdpa=False), Variant(FUSED)]
    rows += [Variant(text, reducer) for text, reducer in plugins.items()]
    return rows + [Variant(HALF, half=True)] * half


@torch.no_grad()
def count_rows(model: nn.Module, variants: list[Variant], inputs: Tensor) -> list[Row]:
    """Rows with MACs and parameters for one image; nothing is timed.

    Raises:
        ValueError: a plugin doesn't fit the model or the inputs' size.
    """
    return [_count(model, variant, inputs) for variant in variants]


@torch.no_grad()
def benchmark_rows(model: nn.Module, variants: list[Variant], inputs: Tensor, rounds: int, warmup: int) -> list[Row]:
    """Rows with MACs, parameters, milliseconds, speed-up over `host + sdpa` and peak memory, for one image each.

    A row that can't run has none of them, and says why under `failure`: some hosts mix dtypes where they are not
    float32, and what they compute step by step may not fit in memory.

    Raises:
        ValueError: `host + sdpa` itself can't run, or a plugin doesn't fit the model or the inputs' size.
    """
    sized = {variant.name: variant.resize(inputs) for variant in variants}
    failures = {variant.name: _failure(model, variant, sized[variant.name]) for variant in variants}
    if failures[FUSED]:
        where = f'{str(inputs.dtype).removeprefix("torch.")} on {inputs.device}'
        raise ValueError(f'{FUSED}, which all rows are compared with, cannot run in {where}: {failures[FUSED]}')
    running = [variant for variant in variants if not failures[variant.name]]
    rows = {row.name: row for row in count_rows_cheaply(model, running, inputs)}
    current: list[Tensor] = [inputs]

    def context(variant: Variant):
        current[0] = sized[variant.name]
        return variant.applied(model)

    contexts = {variant.name: (lambda v=variant: context(v)) for variant in running}
    timings = time_interleaved(contexts, lambda: forward(model, current[0]), FUSED, rounds, warmup, inputs.device)
    for variant in running:
        timing = timings[variant.name]
        per_image = {name: getattr(timing, name) / len(inputs) for name in ('ms', 'ms_p20', 'ms_p80')}
        speed = dict(speedup=timing.speedup, speedup_p20=timing.speedup_p20, speedup_p80=timing.speedup_p80)
        with variant.applied(model):
            peak = peak_mib(lambda v=variant: forward(model, sized[v.name]), inputs.device)
        rows[variant.name] = replace(rows[variant.name], **per_image, **speed, peak_mib=peak / len(inputs))
    return [rows.get(v.name) or _row(model, v, macs=None, failure=failures[v.name]) for v in variants]


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


def _failure(model: nn.Module, variant: Variant, inputs: Tensor) -> str | None:
    """Why a variant can't run."""
    with variant.applied(model):
        try:
            forward(model, inputs)
        except (RuntimeError, TypeError) as error:  # NumPy, which some hosts compute with, has no bfloat16
            reason = str(error).strip().partition('\n')[0]
            return f'{type(error).__name__}: {reason}'
    return None
