"""The whole benchmark, part by part."""

from collections.abc import Callable
from dataclasses import replace

from . import attention, kernels, passes
from .timing import Results

PARTS = ('ops', 'passes', 'steps', 'settings', 'attention', 'compiled')
"""In the order they are run."""


def run_parts(parts: list[str], results: Results, setups: list[passes.Setup] | None = None) -> None:
    """Runs parts of the benchmark. What fails is a row with the reason, and the rest goes on."""
    setups = list(passes.default_setups()) if setups is None else setups
    ceilings = dict(bytes_per_s=float('nan'), flops_per_s=float('nan'))
    with results.soft(part='ceilings'):
        ceilings = kernels.measure_ceilings(results)
    compiled = [replace(setup, model='ViT-B') for setup in setups[:1]] + setups[:1]
    runs: dict[str, Callable[[], None]] = {
        'settings': lambda: kernels.measure_settings(results),
        'ops': lambda: kernels.measure_ops(kernels.SHAPES, results, ceilings),
        'passes': lambda: passes.measure_passes(setups, results),
        'attention': lambda: attention.measure_attention(attention.SHAPES, results),
        'steps': lambda: kernels.measure_steps(results),
        'compiled': lambda: passes.measure_compiled(compiled, results),
    }
    for part in parts:
        if results.clock.is_over:
            results.add(part=part, failure='no time left')
            continue
        before = results.clock.spent
        with results.soft(part=part):
            runs[part]()
        results.add(part=part, seconds=round(results.clock.spent - before, 1))
