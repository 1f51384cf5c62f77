"""The trade-off report: what each plugin saves, and what it costs in accuracy."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..measure.equal_cost import Comparison
from ..measure.files import write_together
from .curve import draw_curve
from .pages import as_data_url, render_page
from .table import format_gmacs, format_table

FIELDS = ('macs', 'params', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'peak_mib')


def write_report(
    out: Path,
    title: str,
    report: dict[str, Any],
    headlines: Sequence[str],
    pictures: Sequence[Sequence[tuple[str, bytes]]],
) -> None:
    """Writes `tradeoff.json`, `.csv`, `.png` and a self-contained `report.html`, together or not at all.

    Args:
        out: folder.
        report: `environment`, `rows` and `equal_cost`, comparisons as dicts.
        headlines: the metrics to show; the first is the curve's.
        pictures: lines of JPEGs with their captions.
    """
    curve = draw_curve(report['rows'], headlines[0])
    page = render(title, report, headlines, curve, pictures)
    write_together(
        {
            out / 'tradeoff.json': json.dumps(report, indent=1).encode(),
            out / 'tradeoff.csv': _as_csv(report['rows']).encode(),
            out / 'tradeoff.png': curve,
            out / 'report.html': page.encode(),
        }
    )


def render(
    title: str,
    report: dict[str, Any],
    headlines: Sequence[str],
    curve: bytes,
    pictures: Sequence[Sequence[tuple[str, bytes]]],
) -> str:
    """The page, with every image inside it."""
    lines = [[(caption, as_data_url(image, 'jpeg')) for caption, image in line] for line in pictures]
    told = dict(title=title, headlines=headlines, curve=as_data_url(curve, 'png'), pictures=lines)
    return render_page(Path(__file__).parent / 'report.html', format_gmacs=format_gmacs, **told, **report)


def describe_rows(rows: list[dict[str, Any]], comparisons: list[Comparison], headline: str) -> str:
    """The rows as a table, and what their comparisons say, as text."""
    lines = [format_table(rows)]
    for c in comparisons:
        interval = '' if c.interval is None else f' (95 % interval {c.interval[0]:+.2f} to {c.interval[1]:+.2f})'
        lines.append(
            f'{c.ours} loses {c.ours_loss:.2f} points of {headline}, {c.theirs} {c.theirs_loss:.2f}, '
            f'at {c.macs_ratio:.2f} of its MACs: {c.difference:+.2f}{interval}'
        )
    lines += [f'{row["name"]}: outputs were not finite' for row in rows if not row['finite']]
    return '\n'.join(lines)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    changes = [f'{name} {what}' for name in rows[0]['differences'] for what in ('difference', 'low', 'high')]
    writer.writerow(['name', *rows[0]['metrics'], *changes, *FIELDS])
    for row in rows:
        figures = []
        for name, difference in row['differences'].items():
            figures += [difference, *(row['intervals'][name] or (None, None))]
        writer.writerow([row['name'], *row['metrics'].values(), *figures, *(row[name] for name in FIELDS)])
    return text.getvalue()
