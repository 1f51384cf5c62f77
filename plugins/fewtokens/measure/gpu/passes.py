"""Forward passes of timm's ViTs, whole and with fewer tokens."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ...attach import attach
from ...ops.grid import Grid
from ...reducers import GradualUpdate, Hourglass, Reduced, Reducer, SharedUpdate
from ..twins import twin
from .timing import Call, Results, captured, in_pytorch, time_calls

MODELS = {
    'ViT-B': dict(embed_dim=768, depth=12, num_heads=12),
    'ViT-L': dict(embed_dim=1024, depth=24, num_heads=16),
    'ViT-H': dict(embed_dim=1280, depth=32, num_heads=16),
}
PATCH = 16
TWINS = ('Hourglass', 'SharedUpdate', 'GradualUpdate')
"""Rows that there is another of, in PyTorch's form."""


@dataclass(frozen=True)
class Setup:
    """A model, its input, and in which number format."""

    model: str
    pixels: int
    batch: int
    dtype: str = 'bfloat16'
    costs: bool = False
    """Whether to take parts of a method away as well, to see what each takes."""

    @property
    def about(self) -> dict[str, Any]:
        """What its rows say of it."""
        return {name: value for name, value in asdict(self).items() if name != 'costs'}

    @property
    def grid(self) -> int:
        return self.pixels // PATCH

    def build(self) -> tuple[nn.Module, Tensor]:
        """With random weights."""
        from timm.models.vision_transformer import VisionTransformer

        dtype = getattr(torch, self.dtype)
        with torch.device('cuda'):
            model = VisionTransformer(
                img_size=self.pixels, patch_size=PATCH, num_classes=0, global_pool='', **MODELS[self.model]
            )
            images = torch.randn(self.batch, 3, self.pixels, self.pixels)
        return model.to(dtype).eval(), images.to(dtype)

    def reducers(self) -> dict[str, Reducer]:
        """By method: at 640 pixels of a ViT-L (10, 28x28), (6, 20x20) and every sixth, elsewhere the same shares."""
        depth = MODELS[self.model]['depth']
        after, side = -(-depth * 5 // 12), self.grid * 7 // 10
        shared = SharedUpdate(depth // 4, self.grid // 2)
        gradual = GradualUpdate(tuple(range(0, depth, depth // 4)), 0.35)
        reducers = {'Hourglass': Hourglass(after, side), 'SharedUpdate': shared, 'GradualUpdate': gradual}
        if self.costs:
            reducers['SharedUpdate, spread=False'] = replace(shared, spread=False)
            reducers['free'] = Free(shared.after, cast(Grid, shared.grid))
        return reducers


@dataclass(frozen=True)
class Free(Reducer):
    """Drops tokens and puts the old ones back: what SharedUpdate's pass would take if merging cost nothing."""

    restores: ClassVar[str] = 'update'
    size_bias = True
    grid: Grid

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        count = self.grid[0] * self.grid[1]
        labels, sizes = _constants(len(tokens), tokens.shape[1], count)
        return Reduced(tokens[:, :count], labels, tokens, self.grid, sizes)

    def restore(self, tokens: Tensor, record: Tensor) -> Tensor:
        return record


_KEPT: dict[tuple, tuple[Tensor, Tensor]] = {}


def _constants(batch: int, before: int, after: int) -> tuple[Tensor, Tensor]:
    key = (batch, before, after)
    if key not in _KEPT:
        labels = torch.zeros((batch, before), dtype=torch.int64, device='cuda')
        _KEPT[key] = labels, torch.full((batch, after), before / after, device='cuda')
    return _KEPT[key]


def calls_of(setup: Setup, compiled: bool = False) -> dict[str, Call]:
    """The passes to compare, by name; if they aren't compiled, with twins in PyTorch's form."""
    model, images = setup.build()

    def passing(reducer: Reducer | None) -> Call:
        own = twin(model)
        if reducer is not None:
            attach(own, reducer)

        run = torch.compile(own, fullgraph=True, dynamic=False) if compiled else own

        def call() -> Tensor:
            with torch.inference_mode():
                return run(images)

        return call

    calls = {'host': passing(None)}
    for name, reducer in setup.reducers().items():
        calls[name] = passing(reducer)
        if not compiled and name in TWINS:
            calls[f'{name}, PyTorch'] = in_pytorch(passing(reducer))
    return calls


def measure_passes(setups: list[Setup], results: Results) -> None:
    """Rows of passes, launched one by one and as a CUDA graph."""
    for setup in setups:
        if results.clock.is_over:
            results.add(part='passes', **setup.about, failure='no time left')
            continue
        with results.soft(part='passes', **setup.about):
            calls = calls_of(setup)
            for mode, change in (('eager', lambda call: call), ('graph', captured)):
                _compare(setup, mode, calls, change, results)
            del calls
        torch.cuda.empty_cache()


def _compare(setup: Setup, mode: str, calls: dict[str, Call], change: Callable[[Call], Call], results: Results) -> None:
    about = dict(part='passes', **setup.about, mode=mode)
    ready = {}
    for name, call in calls.items():
        with results.soft(**about, name=name):
            call()
            ready[name] = change(call)
            ready[name]()
    timings = time_calls(ready, 'host')
    for name, timing in timings.items():
        share = None
        if 'free' in timings and name in ('SharedUpdate', 'SharedUpdate, spread=False'):
            share = 1 - timings['free']['ms'] / timing['ms']
        results.add(**about, name=name, tokens=setup.grid**2, **timing, share_beyond_free=share)


def measure_compiled(setups: list[Setup], results: Results) -> None:
    """Rows of passes compiled by Inductor, run as they are and as a CUDA graph."""
    for setup in setups:
        about = dict(part='compiled', **setup.about)
        with results.soft(**about):
            calls = {}
            for name, call in calls_of(setup, compiled=True).items():
                if results.clock.is_over:
                    results.add(**about, name=name, failure='no time left')
                    continue
                with results.soft(**about, name=name):
                    start = results.clock.spent
                    call()
                    calls[name] = call
                    results.add(**about, name=name, compiling_seconds=results.clock.spent - start)
            for mode, change in (('compile', lambda call: call), ('compile + graph', captured)):
                _compare(setup, mode, calls, change, results)
        torch.cuda.empty_cache()


def default_setups() -> Iterator[Setup]:
    """The most telling first."""
    for batch in (1, 8):
        for pixels in (640, 1024):
            yield Setup('ViT-L', pixels, batch, costs=True)
    for pixels in (512, 1280):
        yield Setup('ViT-L', pixels, 1)
    for model in ('ViT-B', 'ViT-H'):
        yield Setup(model, 640, 1)
        yield Setup(model, 1024, 1)
    yield Setup('ViT-L', 640, 1, 'float16')
    for pixels in (512, 1280):
        yield Setup('ViT-L', pixels, 8)
    for model in ('ViT-B', 'ViT-H'):
        yield Setup(model, 640, 8)
