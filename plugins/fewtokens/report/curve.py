"""The accuracy–speed curve of a report."""

import io
import re
from typing import Any

import matplotlib
import numpy as np

from ..measure.variants import FUSED, HALF, HOST

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

NEAR = 3
"""Points of the headline metric that the curve's close-up spans."""
COLOURS = {
    HOST: '#8a94a3',
    FUSED: '#3b4656',
    HALF: '#7a5195',
    'AvgPool': '#b3261e',
    'Hourglass': '#d9822b',
    'SharedUpdate': '#1769aa',
    'kmedoids': '#1769aa',
    'spectral': '#d9822b',
    'pooling': '#b3261e',
}
VIDEO = 'SegmentClustering('


def draw_curve(rows: list[dict[str, Any]], headline: str) -> bytes:
    """Accuracy over speed-up as a PNG, a point a row: all rows, and those near the host's accuracy, with labels."""
    figure, (all_rows, close_up) = plt.subplots(1, 2, figsize=(12, 5.2), width_ratios=(1, 2))
    near = sorted((row for row in rows if row['differences'][headline] > -NEAR), key=lambda row: row['speedup'])
    for axes, shown in ((all_rows, rows), (close_up, near)):
        _plot(axes, shown, headline)
        axes.axhline(rows[0]['metrics'][headline], color='grey', lw=0.8, ls=':')
    # The hosts are known by their colours.
    for number, row in enumerate(row for row in near if row['name'] not in COLOURS):
        # Neighbours' labels go above and below in turn, clear of their intervals.
        below, beyond = _reach(row, headline)
        above = number % 2 == 0
        height = row['metrics'][headline] + (beyond if above else -below)
        close_up.annotate(
            _short(row['name']),
            (row['speedup'], height),
            xytext=(0, 6 if above else -6),
            textcoords='offset points',
            ha='center',
            va='bottom' if above else 'top',
            fontsize=9,
        )
    all_rows.set_title('all rows', fontsize=10)
    labels = 'segments x clusters, after' if any(row['name'].startswith(VIDEO) for row in rows) else 'after, grid'
    close_up.set_title(f'within {NEAR} points of the host; labels are {labels}', fontsize=10)
    all_rows.legend(fontsize=9)
    return as_png(figure, dpi=140)


def as_png(figure: Any, dpi: int) -> bytes:
    """A finished figure of matplotlib, which is closed."""
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def _plot(axes: Any, rows: list[dict[str, Any]], headline: str) -> None:
    for kind, group in _by_kind(rows).items():
        speed, accuracy = ([row['speedup'] for row in group], [row['metrics'][headline] for row in group])
        bars = np.array([_reach(row, headline) for row in group]).T
        axes.errorbar(speed, accuracy, yerr=bars, fmt='o', capsize=3, lw=1, label=kind, color=COLOURS.get(kind))
    axes.set_xlabel(f'speed-up over {FUSED}')
    axes.set_ylabel(headline)
    axes.grid(alpha=0.25)
    axes.margins(x=0.12, y=0.14)


def _reach(row: dict[str, Any], headline: str) -> tuple[float, float]:
    """How far the interval reaches below and above a row."""
    difference = row['differences'][headline]
    low, high = row['intervals'][headline] or (difference, difference)
    return max(0.0, difference - low), max(0.0, high - difference)


def _by_kind(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of one method together, slowest first."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row['speedup']):
        kinds.setdefault(_kind(row['name']), []).append(row)
    return kinds


def _kind(name: str) -> str:
    """A row's method: of a clustering of videos its algorithm."""
    if not name.startswith(VIDEO):
        return name.partition('(')[0]
    algorithm = re.search(r"algorithm='(\w+)'", name)
    return algorithm[1] if algorithm else 'kmedoids'


def _short(name: str) -> str:
    """The settings of a plugin without their names, for a label in a plot."""
    settings = name.partition('(')[2].removesuffix(')')
    settings = re.sub(r"(, )?algorithm='\w+'", '', settings).replace('segments=', '').replace(', clusters=', ' x ')
    for long, short in (
        ('after=', ''),
        ('grid=', ''),
        ('temperature=', 'T='),
        ('size_bias=True', 'counted'),
        ("aggregate='mean'", 'means'),
        ('normalize=True', 'normalised'),
    ):
        settings = settings.replace(long, short)
    return settings or name
