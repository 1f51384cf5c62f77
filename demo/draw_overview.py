"""Draws what merging tokens does, on real photographs and with real weights: docs/figures/overview.jpg.

For each photograph: itself, its clusters, and features and saliency of a real DINOv2 with all tokens and with fewer.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from fewtokens.cli.options import HelpFormatter, at_least
from fewtokens.measure.files import shown, write_whole
from fewtokens.measure.rows import Row
from fewtokens.report.curve import as_png
from fewtokens.report.photographs import bundled_photographs

from .real.compare import make_rows, measure_rows, view_all
from .real.dinov2 import NATIVE, load_model
from .real.page import Shown, draw_views

PHOTOGRAPHS = ('astronaut', 'chelsea', 'coffee')
"""In the public domain, so that a picture of them can be shown anywhere."""
PLUGIN = 'GradualUpdate(after=(0, 3, 6, 9), keep=0.35)'
QUALITY = 82


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('--plugin', default=PLUGIN, help='the reducer')
    parser.add_argument('--rounds', type=at_least(1), default=5, help='how many times each pass is timed')
    parser.add_argument('--out', type=Path, default=Path('docs/figures/overview.jpg'), help='picture, a JPEG')
    args = parser.parse_args()
    if args.out.suffix.lower() not in ('.jpg', '.jpeg'):
        raise ValueError(f'--out {str(args.out)!r} must end with .jpg')
    photographs = {name: pixels for name, pixels in bundled_photographs(NATIVE).items() if name in PHOTOGRAPHS}
    variants, model = make_rows([args.plugin]), load_model()
    _, row = measure_rows(model, variants, next(iter(photographs.values())), args.rounds)
    drawn = [draw_views(name, photographs[name], views) for name, views in view_all(model, variants, photographs)]
    png = np.frombuffer(as_png(plot_overview(drawn, row), dpi=110), np.uint8)
    content = cv2.imencode('.jpg', cv2.imdecode(png, cv2.IMREAD_COLOR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    write_whole(args.out, lambda path: path.write_bytes(content))
    print(f'{shown(args.out)}: {len(content) / 1000:.0f} kB, {row.speedup:.2f} times as fast')


def plot_overview(drawn: list[Shown], row: Row) -> Figure:
    """A line a photograph; `row` is what was measured of the second column of each."""
    titles = (
        'photograph',
        'its clusters',
        'features, all tokens',
        'fewer tokens',
        'saliency, all tokens',
        'fewer tokens',
    )
    figure = Figure(figsize=(12, 2.02 * len(drawn) + 0.55))
    figure.suptitle(f'DINOv2 ViT-S/14, nothing retrained: {row.name} is {row.speedup:.1f}x as fast', fontsize=13)
    axes = figure.subplots(len(drawn), len(titles), squeeze=False)
    for line, photograph in zip(axes, drawn):
        (picture, *full), (clusters, *fewer) = photograph.columns
        for place, image in zip(line, (picture, clusters, full[0], fewer[0], full[1], fewer[1])):
            place.imshow(image)
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
        line[3].set_xlabel(f'cosine {photograph.cosines[1] / 100:.3f}', fontsize=9, labelpad=3)
    for place, title in zip(axes[0], titles):
        place.set_title(title, fontsize=10)
    return figure
