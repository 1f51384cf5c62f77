"""What was measured on a CUDA device, as tables and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SETUP = ('model', 'pixels', 'batch', 'dtype', 'side', 'clusters', 'tokens', 'heads', 'width')
"""What tells one comparison from another; a row has some of them."""


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """A line a row, under a headline for each comparison."""
    lines, before = [], None
    for row in rows:
        about = ', '.join(f'{name} {row[name]}' for name in SETUP if name in row)
        headline = f'{row["part"]}: {about}' if about else row['part']
        if headline != before:
            lines += ['', headline]
            before = headline
        lines.append('  ' + _line(row))
    return '\n'.join(lines).strip()


def _line(row: dict[str, Any]) -> str:
    name = ', '.join(str(row[key]) for key in ('mode', 'name', 'form') if key in row)
    if 'failure' in row:
        return f'{name}: {row["failure"]}'
    if 'ms' in row:
        figures = [f'{row["ms"]:9.4f} ms', f'{row["speedup"]:7.3f}x']
        if row.get('share_beyond_free') is not None:
            figures.append(f'{row["share_beyond_free"]:.1%} beyond a free merge')
        if 'bandwidth_share' in row:
            figures.append(f'{row["bandwidth_share"]:.0%} of bandwidth, floor {row["floor_us"]:.1f} us')
        return f'{name:50} {"  ".join(figures)}'
    if 'kernels' in row:
        return f'{name}: ' + ', '.join(f'{kernel[:24]} {us:.1f}' for kernel, us in row['kernels'])
    known = {*SETUP, 'part', 'mode', 'name', 'form'}
    return f'{name}: ' + ', '.join(
        f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
        for key, value in row.items()
        if key not in known
    )


def draw_gain(rows: Sequence[dict[str, Any]], device: str, path: Path) -> None:
    """Speed-up over the host by number of tokens, a curve for each way to launch and batch; needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, sharey=True)
    for one, name in zip(axes, ('Hourglass', 'SharedUpdate', 'GradualUpdate')):
        curves: dict[tuple, list[tuple[int, float]]] = {}
        for row in rows:
            if row['part'] == 'passes' and row.get('name') == name and 'speedup' in row and row['dtype'] == 'bfloat16':
                key = row['model'], row['batch'], row['mode']
                curves.setdefault(key, []).append((row['tokens'], row['speedup']))
        for (model, batch, mode), points in sorted(curves.items()):
            one.plot(*zip(*sorted(points)), '-o' if mode == 'graph' else '--o', label=f'{model}, batch {batch}, {mode}')
        one.axhline(1, color='gray', linewidth=0.8)
        one.set(title=name, xlabel='tokens of an image', xscale='log')
    axes[0].set_ylabel(f'times as fast as the host\n{device}, bfloat16')
    if axes[-1].get_legend_handles_labels()[1]:
        axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=120)
