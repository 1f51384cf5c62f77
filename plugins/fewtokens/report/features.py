"""The page of what models see with fewer tokens: figures, curves, and pictures beside each other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from ..measure.files import write_together
from ..measure.rows import ReportRow, Row
from .curve import COLOURS, draw_curve
from .pages import as_data_url, render_page
from .pictures import draw_clusters, encode_jpeg, enlarge
from .table import format_gmacs
from .tradeoff import as_csv

SHORT_SIDE = 224
"""Pixels of a picture on the page."""


@dataclass(frozen=True)
class Shown:
    """One picture as the page shows it: for each row as many drawings as the page has lines, and a cosine in percent.

    Drawings are RGB uint8, all of one size.
    """

    name: str
    columns: list[list[np.ndarray]]
    cosines: list[float]


@dataclass(frozen=True)
class Story:
    """What a page says beside its figures.

    Attributes:
        title, about: of the page, and of the model and pictures.
        metrics: the heads of the rows' metrics, by their names.
        figures: what the table's figures are of.
        lines: for each line of drawings, what they are.
    """

    title: str
    about: str
    metrics: Mapping[str, str]
    figures: str
    lines: Sequence[str]
    curves: dict[str, bytes] = field(default_factory=dict)


class FeatureColours:
    """Features as colours: the three main directions in which those of one map [h, w, C] differ, and their spread.

    Other features of the same picture have the same directions and the same scale, so the same colour is the same
    feature.
    """

    def __init__(self, features: np.ndarray) -> None:
        flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
        self.mean = flat.mean(axis=0)
        self.axes = np.linalg.svd(flat - self.mean, full_matrices=False)[2][:3].T
        self.low, self.high = np.percentile((flat - self.mean) @ self.axes, (2, 98), axis=0)

    def __call__(self, features: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """RGB [*size, 3] uint8."""
        values = ((features - self.mean) @ self.axes - self.low) / np.maximum(self.high - self.low, 1e-12)
        return enlarge((255 * values.clip(0, 1)).astype(np.uint8), size)


def shrink(picture: np.ndarray) -> np.ndarray:
    """A picture [H, W, ...] uint8 at the page's size."""
    scale = SHORT_SIDE / min(picture.shape[:2])
    size = [max(1, round(scale * side)) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def draw_features(
    picture: np.ndarray, maps: Sequence[np.ndarray], clusters: Sequence[np.ndarray | None]
) -> list[list[np.ndarray]]:
    """For each row two drawings: which tokens were merged (the picture itself of the full model), and the features.

    Args:
        picture: RGB [H, W, 3] uint8.
        maps: features [h, w, C] of each row, the full model's first.
        clusters: [h, w] of each row.
    """
    small, paint = shrink(picture), FeatureColours(maps[0])
    return [
        [small if merged is None else draw_clusters(small, merged), paint(features, small.shape[:2])]
        for features, merged in zip(maps, clusters, strict=True)
    ]


def with_metrics(rows: Sequence[Row], metrics: Sequence[dict[str, float]]) -> list[ReportRow]:
    """Rows with metrics in percent, without intervals."""
    reported = []
    for row, own in zip(rows, metrics, strict=True):
        differences = {name: value - metrics[0][name] for name, value in own.items()}
        told = dict(metrics=own, differences=differences, intervals=dict.fromkeys(own), finite=True)
        reported.append(ReportRow(**{**vars(row), **told}))
    return reported


def plot_by_block(rows: Sequence[Row], cosines: Sequence[np.ndarray] | np.ndarray) -> Figure:
    """How far features have moved after each block, a line a row."""
    figure = Figure(figsize=(12, 4.4))
    axes = figure.subplots()
    for row, values in zip(rows, cosines, strict=True):
        blocks = np.arange(1, len(values) + 1)
        axes.plot(
            blocks, 1 - values, marker='o', ms=3, label=row.short_name, color=None if row.label else COLOURS[row.kind]
        )
    axes.set_xlabel('blocks')
    axes.set_ylabel('1 − cosine of tokens')
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)
    return figure


def write_features(
    out: Path, name: str, rows: Sequence[ReportRow], shown: Sequence[Shown], environment: dict[str, Any], story: Story
) -> None:
    """Writes report.html, complete in itself, and figures and drawings as NAME.json and NAME.png; all or nothing.

    Args:
        out: folder.
        rows: the full model first.
        shown: the pictures to show, all of them or some.
        environment: where and how it was measured; says how many `pictures` there were.
    """
    pictures = [
        dict(
            name=picture.name,
            columns=[
                dict(drawings=[as_data_url(encode_jpeg(drawn), 'jpeg') for drawn in column], cosine=cosine)
                for column, cosine in zip(picture.columns, picture.cosines)
            ],
        )
        for picture in shown
    ]
    headline = next(iter(story.metrics))
    curves = {f'{headline} over speed-up': draw_curve(rows, headline), **story.curves}
    page = render_page(
        Path(__file__).parent / 'features.html',
        format_gmacs=format_gmacs,
        story=story,
        rows=rows,
        pictures=pictures,
        environment=environment,
        csv=as_csv(rows),
        curves={title: as_data_url(curve, 'png') for title, curve in curves.items()},
    )
    figures = dict(environment=environment, rows=[row.as_json() for row in rows])
    write_together(
        {
            out / f'{name}.json': json.dumps(figures, indent=1).encode(),
            out / f'{name}.png': _sheet(shown),
            out / 'report.html': page.encode(),
        }
    )


def _sheet(shown: Sequence[Shown]) -> bytes:
    """All drawings of the page as one, half their size: for each picture a line of drawings, a column a row."""
    lines = [np.concatenate(line, axis=1) for picture in shown for line in zip(*picture.columns)]
    width = max(line.shape[1] for line in lines)
    padded = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    sheet = cv2.resize(np.concatenate(padded), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.imencode('.png', sheet[..., ::-1])[1].tobytes()


def colours_of(picture: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """What a model is given, [3, H, W] normalized, as RGB [H, W, 3] uint8; mean and std are of values from 0 to 1."""
    values = picture.transpose(1, 2, 0) * std + mean
    return (255 * values.clip(0, 1)).round().astype(np.uint8)
