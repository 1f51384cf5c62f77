"""A real DINOv2 with fewer tokens on real photographs: what is saved, what is still seen, pictures of both.

The photographs are those of scikit-image and scikit-learn, and a folder's. Each is compared with what the full model
makes of it: the features by their cosine, the map of the model's decoder by its difference and its overlap.
"""

import argparse
from pathlib import Path

from fewtokens.cli.options import HelpFormatter, at_least
from fewtokens.measure.files import shown
from fewtokens.measure.variants import environment_of
from fewtokens.report.features import with_metrics
from fewtokens.report.photographs import bundled_photographs, read_photographs
from fewtokens.report.table import format_table

from .real.compare import Agreement, decoder_share, default_plugins, make_rows, measure_rows, view_all
from .real.dinov2 import NATIVE, PATCH, as_input, load_model
from .real.page import draw_views, write_page

SHOWN = 12
"""Photographs on the page: it holds all its pictures."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('--pictures', type=Path, help='a folder of your own photographs, to look at first')
    text = f'side of the square that a photograph is made, in pixels: a multiple of {PATCH}'
    parser.add_argument('--size', type=patches, default=NATIVE, help=text)
    text = (
        'a reducer, such as "SharedUpdate(after=3, grid=24)"; may be repeated. Without, three methods in three settings'
    )
    parser.add_argument('--plugin', action='append', default=[], help=text)
    parser.add_argument('--rounds', type=at_least(1), default=5, help='how many times each row is timed')
    parser.add_argument('--out', type=Path, default='work_dirs/real', help='folder of the report')
    return parser.parse_args()


def patches(text: str) -> int:
    """An option's type: pixels that make whole patches, at least as many as the model was made for in small."""
    side = at_least(16 * PATCH)(text)
    if side % PATCH:
        raise argparse.ArgumentTypeError(f'{side} must be a multiple of {PATCH}, such as {round(side / PATCH) * PATCH}')
    return side


def main() -> None:
    args = parse_args()
    variants = make_rows(args.plugin or default_plugins(args.size))
    photographs = read_photographs(args.pictures, args.size) if args.pictures else {}
    photographs |= bundled_photographs(args.size)
    model = load_model()
    first = next(iter(photographs.values()))
    # First, for it finds out whether the plugins fit.
    rows = measure_rows(model, variants, first, args.rounds)
    agreement, drawn = Agreement(len(variants)), []
    for name, views in view_all(model, variants, photographs):
        agreement.add(views)
        if len(drawn) < SHOWN:
            drawn.append(draw_views(name, photographs[name], views))
    rows = with_metrics(rows, [agreement.metrics(number) for number in range(len(rows))])
    environment = environment_of(as_input(first), pictures=len(photographs), rounds=args.rounds)
    write_page(args.out, rows, drawn, environment, decoder_share(model, args.size))
    print(format_table(rows))
    print(f'report: {shown(args.out / "report.html")}')
