"""The accuracy–speed curve of a report."""

import io
import textwrap
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..measure.rows import ReportRow
from ..measure.variants import FUSED, HALF, HOST

NEAR = 3
"""Points of the headline metric that the curve's close-up spans."""
COLOURS = {
    HOST: '#8a94a3',
    FUSED: '#3b4656',
    HALF: '#7a5195',
    'AvgPool': '#b3261e',
    'Hourglass': '#d9822b',
    'SharedUpdate': '#1769aa',
    'BipartiteMerge': '#2e7d4f',
    'GradualUpdate': '#0b8f8a',
    'ToMe': '#8c6d1f',
    'kmedoids': '#1769aa',
    'spectral': '#d9822b',
    'pooling': '#b3261e',
}


def draw_curve(rows: Sequence[ReportRow], headline: str) -> bytes:
    """Accuracy over speed-up as a PNG, a point a row: all rows, and those near the host's accuracy, with labels."""
    return as_png(plot_curve(rows, headline), dpi=140)


def plot_curve(rows: Sequence[ReportRow], headline: str) -> Figure:
    figure = Figure(figsize=(12, 5.2))
    all_rows, close_up = figure.subplots(1, 2, width_ratios=(1, 2))
    near = sorted((row for row in rows if row.differences[headline] > -NEAR), key=attrgetter('speedup'))
    for axes, shown in ((all_rows, rows), (close_up, near)):
        _plot(axes, shown, headline)
        axes.axhline(rows[0].metrics[headline], color='grey', lw=0.8, ls=':')
    # The hosts are known by their colours.
    for number, row in enumerate(row for row in near if row.label):
        # Neighbours' labels go above and below in turn, clear of their intervals.
        below, beyond = _reach(row, headline)
        above = number % 2 == 0
        height = row.metrics[headline] + (beyond if above else -below)
        close_up.annotate(
            textwrap.fill(row.label, 24),
            (row.speedup, height),
            xytext=(0, 6 if above else -6),
            textcoords='offset points',
            ha='center',
            va='bottom' if above else 'top',
            fontsize=9,
        )
    all_rows.set_title('all rows', fontsize=10)
    close_up.set_title(f'within {NEAR} points of the host; labels are settings', fontsize=10)
    all_rows.legend(fontsize=9)
    return figure


def as_png(figure: Figure, dpi: int) -> bytes:
    """A finished figure, drawn without pyplot: whatever shows figures elsewhere in the process stays as it is."""
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=dpi)
    return buffer.getvalue()


def _plot(axes: Any, rows: Sequence[ReportRow], headline: str) -> None:
    for kind, group in _by_kind(rows).items():
        speed, accuracy = ([row.speedup for row in group], [row.metrics[headline] for row in group])
        bars = np.array([_reach(row, headline) for row in group]).T
        axes.errorbar(speed, accuracy, yerr=bars, fmt='o', capsize=3, lw=1, label=kind, color=COLOURS.get(kind))
    axes.set_xlabel(f'speed-up over {FUSED}')
    axes.set_ylabel(headline)
    axes.grid(alpha=0.25)
    axes.margins(x=0.12, y=0.14)


def _reach(row: ReportRow, headline: str) -> tuple[float, float]:
    """How far the interval reaches below and above a row."""
    difference = row.differences[headline]
    low, high = row.intervals[headline] or (difference, difference)
    return max(0.0, difference - low), max(0.0, high - difference)


def _by_kind(rows: Sequence[ReportRow]) -> dict[str, list[ReportRow]]:
    """Rows of one method together, slowest first."""
    kinds: dict[str, list[ReportRow]] = {}
    for row in sorted(rows, key=attrgetter('speedup')):
        kinds.setdefault(row.kind, []).append(row)
    return kinds
