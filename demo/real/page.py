"""The page of what the real model sees with fewer tokens, and one picture of it all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewtokens.measure.files import write_together
from fewtokens.measure.rows import ReportRow
from fewtokens.report.curve import draw_curve
from fewtokens.report.pages import as_data_url, render_page
from fewtokens.report.pictures import draw_clusters, encode_jpeg, enlarge
from fewtokens.report.table import format_gmacs
from fewtokens.report.tradeoff import as_csv

from .compare import COSINE, View

SIDE = 224
"""Pixels of a picture on the page."""


@dataclass(frozen=True)
class Shown:
    """One photograph as the page shows it: for each row its clusters, features and map, RGB [SIDE, SIDE, 3] uint8.

    The full model has the photograph in the place of clusters.
    """

    name: str
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    cosines: list[float]


def draw_views(name: str, photograph: np.ndarray, views: Sequence[View]) -> Shown:
    small = cv2.resize(photograph, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    paint = FeatureColours(views[0].features)
    columns = [
        (small if view.clusters is None else draw_clusters(small, view.clusters), paint(view.features), _heat(view.map))
        for view in views
    ]
    return Shown(name, columns, [view.cosine for view in views])


class FeatureColours:
    """Features as colours: the three main directions in which those of one map [h, w, C] differ, and their spread.

    Other features of the same photograph have the same directions and the same scale, so the same colour is the same
    feature.
    """

    def __init__(self, features: np.ndarray) -> None:
        flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
        self.mean = flat.mean(axis=0)
        self.axes = np.linalg.svd(flat - self.mean, full_matrices=False)[2][:3].T
        self.low, self.high = np.percentile((flat - self.mean) @ self.axes, (2, 98), axis=0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """RGB [SIDE, SIDE, 3] uint8."""
        values = ((features - self.mean) @ self.axes - self.low) / np.maximum(self.high - self.low, 1e-12)
        return enlarge((255 * values.clip(0, 1)).astype(np.uint8), (SIDE, SIDE))


def _heat(values: np.ndarray) -> np.ndarray:
    small = cv2.resize((255 * values).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.applyColorMap(small, cv2.COLORMAP_INFERNO)[..., ::-1]


def write_page(
    out: Path, rows: Sequence[ReportRow], shown: Sequence[Shown], environment: dict[str, Any], decoder_share: float
) -> None:
    """Writes report.html, complete in itself, real.json and real.png, together or not at all.

    Args:
        out: folder.
        shown: the photographs to show, all of them or some.
        environment: where and how it was measured; says how many photographs there were.
        decoder_share: of the full model's MACs, what its decoder takes.
    """
    photographs = [
        dict(
            name=photograph.name,
            columns=[
                dict(pictures=[as_data_url(encode_jpeg(picture), 'jpeg') for picture in column], cosine=cosine)
                for column, cosine in zip(photograph.columns, photograph.cosines)
            ],
        )
        for photograph in shown
    ]
    told = dict(rows=rows, photographs=photographs, environment=environment, decoder_share=decoder_share)
    curve = as_data_url(draw_curve(rows, COSINE), 'png')
    told |= dict(format_gmacs=format_gmacs, curve=curve, csv=as_csv(rows))
    page = render_page(Path(__file__).parent / 'page.html', **told)
    figures = dict(environment=environment, rows=[row.as_json() for row in rows])
    write_together(
        {
            out / 'real.json': json.dumps(figures, indent=1).encode(),
            out / 'real.png': _sheet(shown),
            out / 'report.html': page.encode(),
        }
    )


def _sheet(shown: Sequence[Shown]) -> bytes:
    """All pictures of the page as one, half their size: for each photograph three lines, a column a row."""
    lines = [
        np.concatenate([column[line] for column in photograph.columns], axis=1)
        for photograph in shown
        for line in range(3)
    ]
    sheet = cv2.resize(np.concatenate(lines), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.imencode('.png', sheet[..., ::-1])[1].tobytes()
