"""What MMEngine logged of a training, or of several one after the other: as a table and as a picture."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .curve import as_png


def read_log(work_dir: str | Path) -> list[dict[str, Any]]:
    """The scalars that a training logged, by step; of a training that was resumed, the later run's count.

    Raises:
        FileNotFoundError: the folder has no log.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{work_dir} has no */vis_data/scalars.json: it is no work folder of a training')
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for file in files:
        run = [json.loads(line) for line in file.read_text().splitlines()]
        first = min((row['step'] for row in run), default=0)
        found = {key: row for key, row in found.items() if key[0] < first}
        found |= {(row['step'], 'loss' not in row): row for row in run}
    return [found[key] for key in sorted(found)]


def log_table(phases: Mapping[str, Sequence[dict[str, Any]]], metrics: Sequence[str]) -> str:
    """CSV of losses, learning rate and the metrics, a line a logged step.

    Raises:
        ValueError: a metric was never logged.
    """
    rows = [(phase, row) for phase, logged in phases.items() for row in logged]
    logged = sorted({name for _, row in rows for name in row})
    if missing := [metric for metric in metrics if metric not in logged]:
        raise ValueError(f'metric {missing[0]!r} was not logged; there are {", ".join(logged)}')
    losses = [name for name in logged if name.startswith('loss')]
    columns = ['step', *losses, 'lr', *metrics]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['phase', *columns])
    writer.writerows([phase, *(_short(row.get(name)) for name in columns)] for phase, row in rows)
    return out.getvalue()


def draw_log(phases: Mapping[str, Sequence[dict[str, Any]]], metrics: Sequence[str]) -> bytes:
    """Training loss above, metrics below, the phases one after the other, as a PNG."""
    figure = Figure(figsize=(7.5, 5.2))
    above, below = figure.subplots(2, 1, sharex=True)
    start = 0
    for number, (phase, rows) in enumerate(phases.items()):
        colour = f'C{number}'
        _line(above, rows, 'loss', start, color=colour, label=phase)
        for marker, metric in zip('os^Dv', metrics):
            _line(below, rows, metric, start, color=colour, marker=marker, label=f'{metric}, {phase}')
        start += max(row['step'] for row in rows)
    above.set_ylabel('training loss')
    below.set(xlabel='step', ylabel='validation')
    for axes in (above, below):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=9)
    return as_png(figure, dpi=100)


def _line(axes: Any, rows: Sequence[dict[str, Any]], name: str, start: int, **style: Any) -> None:
    points = [(start + row['step'], row[name]) for row in rows if name in row]
    if points:
        axes.plot(*zip(*points), **style)


def _short(value: Any) -> Any:
    return f'{value:.6g}' if isinstance(value, float) else value
