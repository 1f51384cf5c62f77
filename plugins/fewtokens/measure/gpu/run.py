"""The whole benchmark, part by part."""

from collections.abc import Callable
from dataclasses import replace

from . import attention, kernels, passes
from .timing import Results

PARTS = ('passes', 'ops', 'compiled', 'sizes', 'steps', 'attention', 'settings')
"""The most telling first; 'sizes' are passes at other sizes, of other models."""


def run_parts(parts: list[str], results: Results, setups: list[passes.Setup] | None = None) -> None:
    """Runs parts of the benchmark. What fails is a row with the reason, and the rest goes on."""
    setups = list(passes.default_setups()) if setups is None else setups
    compiled = [replace(setup, costs=False) for setup in setups[:1]]
    runs: dict[str, Callable[[], None]] = {
        'settings': lambda: kernels.measure_settings(results),
        'ops': lambda: kernels.measure_ops([*kernels.SHAPES, *kernels.SEGMENTS], results),
        'passes': lambda: passes.measure_passes([setup for setup in setups if setup.costs], results),
        'sizes': lambda: passes.measure_passes([setup for setup in setups if not setup.costs], results),
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
