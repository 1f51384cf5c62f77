"""The trade-off report: what each plugin saves, and what it costs in accuracy."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..measure.equal_cost import Comparison
from ..measure.files import write_together
from ..measure.rows import ReportRow
from .curve import draw_curve
from .pages import as_data_url, render_page
from .table import format_gmacs, format_metric, format_table

FIELDS = ('macs', 'params', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'peak_mib')


@dataclass(frozen=True)
class Found:
    """A video that a text found: its score, and its middle frame as a data URL."""

    name: str
    score: float
    right: bool
    image: str


@dataclass(frozen=True)
class Answer:
    """What a row finds for a text: the nearest videos, and at which place among all the right one is, from 1."""

    name: str
    place: int
    videos: list[Found]


@dataclass(frozen=True)
class Query:
    """A text, and what each row finds for it."""

    text: str
    lines: list[Answer]


@dataclass(frozen=True)
class Report:
    """What was measured, on what, and the rows that cost the same."""

    title: str
    environment: dict[str, Any]
    rows: list[ReportRow]
    comparisons: list[Comparison]

    @property
    def headlines(self) -> list[str]:
        """The metrics to show; the first is the curve's."""
        return list(self.rows[0].differences)

    def as_json(self) -> dict[str, Any]:
        return dict(
            environment=self.environment,
            rows=[row.as_json() for row in self.rows],
            equal_cost=[comparison.as_json() for comparison in self.comparisons],
        )


def write_report(
    out: Path, report: Report, pictures: Sequence[Sequence[tuple[str, bytes]]], queries: Sequence[Query] = ()
) -> None:
    """Writes `tradeoff.json`, `.csv`, `.png` and a self-contained `report.html`, together or not at all.

    Args:
        out: folder.
        pictures: lines of JPEGs with their captions.
        queries: of models that find videos, a few texts.
    """
    curve = draw_curve(report.rows, report.headlines[0])
    page = render(report, curve, pictures, queries)
    write_together(
        {
            out / 'tradeoff.json': json.dumps(report.as_json(), indent=1).encode(),
            out / 'tradeoff.csv': as_csv(report.rows).encode(),
            out / 'tradeoff.png': curve,
            out / 'report.html': page.encode(),
        }
    )


def render(
    report: Report, curve: bytes, pictures: Sequence[Sequence[tuple[str, bytes]]], queries: Sequence[Query]
) -> str:
    """The page, with every image inside it."""
    lines = [[(caption, as_data_url(image, 'jpeg')) for caption, image in line] for line in pictures]
    told = dict(vars(report), headlines=report.headlines, curve=as_data_url(curve, 'png'), pictures=lines)
    told |= dict(queries=queries, csv=as_csv(report.rows))
    formats = dict(format_gmacs=format_gmacs, format_metric=format_metric)
    return render_page(Path(__file__).parent / 'report.html', **formats, **told)


def describe_report(report: Report) -> str:
    """The rows as a table, and what their comparisons say, as text."""
    lines = [format_table(report.rows)]
    for c in report.comparisons:
        interval = '' if c.interval is None else f' (95 % interval {c.interval[0]:+.2f} to {c.interval[1]:+.2f})'
        lines.append(
            f'{c.ours.name} loses {c.ours_loss:.2f} points of {report.headlines[0]}, {c.theirs.name} '
            f'{c.theirs_loss:.2f}, at {c.macs_ratio:.2f} of its MACs: {c.difference:+.2f}{interval}'
        )
    lines += [f'{row.name}: outputs were not finite' for row in report.rows if not row.finite]
    return '\n'.join(lines)


def as_csv(rows: Sequence[ReportRow]) -> str:
    """All figures of the rows, with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    changes = [f'{name} {what}' for name in rows[0].differences for what in ('difference', 'low', 'high')]
    writer.writerow(['name', *rows[0].metrics, *changes, *FIELDS])
    for row in rows:
        figures = []
        for name, difference in row.differences.items():
            figures += [difference, *(row.intervals[name] or (None, None))]
        writer.writerow([row.name, *row.metrics.values(), *figures, *(getattr(row, name) for name in FIELDS)])
    return text.getvalue()
