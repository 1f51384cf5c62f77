"""Segment Anything with fewer tokens: how much sooner its image encoder is done, and how far its masks move.

The masks are those of a grid of points, and the automatic ones of whole photographs; the full model's are what they are
compared with. Pictures show both side by side. With base, large or huge in the place of a model, the published encoders
with random weights are timed, and nothing else is done.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..measure.files import shown, write_together
from ..measure.progress import progress_bar
from ..measure.rows import ReportRow, Row
from ..measure.segment_anything import (
    SIZES,
    Agreement,
    default_plugins,
    load_model,
    random_encoder,
    segment,
)
from ..measure.variants import FUSED, Variant, benchmark_rows, environment_of
from ..plugin import parse_reducer
from ..report.masks import draw_row
from ..report.photographs import bundled_photographs, read_photographs
from ..report.pictures import encode_jpeg
from ..report.table import format_table
from .options import HelpFormatter, add_machine_options, at_least


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    text = f'a folder or a name at Hugging Face, such as facebook/sam-vit-huge; or {", ".join(SIZES)}: see above'
    parser.add_argument('model', help=text)
    text = 'a folder of photographs; those of scikit-image and scikit-learn if left out'
    parser.add_argument('--pictures', type=Path, help=text)
    text = 'a reducer, such as "SharedUpdate(after=8, grid=10)"; may be repeated. Without, published settings'
    parser.add_argument('--plugin', action='append', default=[], help=text)
    parser.add_argument('--points', type=at_least(1), default=16, help='prompts across a photograph, and down')
    text = 'masks that the full model scores less are not compared, and none that any scores less is an automatic one'
    parser.add_argument('--min-score', type=float, default=0.88, help=text)
    parser.add_argument('--rounds', type=at_least(1), default=3, help='how many times each row is timed')
    add_machine_options(parser)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/segment_anything'), help='folder of the report')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    if args.model in SIZES:
        if args.pictures:
            raise ValueError(f'{args.model} has random weights, whose masks say nothing: leave --pictures out')
        encoder = random_encoder(args.model).to(args.device, dtype)
        images = torch.randn(1, 3, 1024, 1024).to(args.device, dtype)
        rows, agreement = time_rows(encoder, _variants(args.plugin, encoder), images, args.rounds), None
        pictures: dict[Path, bytes] = {}
    else:
        model, processor = load_model(args.model)
        model.to(args.device, dtype)
        variants = _variants(args.plugin, model.vision_encoder)
        photographs = read_photographs(args.pictures) if args.pictures else bundled_photographs()
        images = processor(images=next(iter(photographs.values())), return_tensors='pt')['pixel_values']
        images = images.to(args.device, dtype)
        # First, for it finds out whether the plugins fit.
        rows = time_rows(model.vision_encoder, variants, images, args.rounds)
        agreement, pictures = Agreement(len(variants), args.min_score), {}
        with progress_bar(len(photographs), 'comparing masks') as bar:
            for name, photograph in photographs.items():
                masks = [segment(model, processor, v, photograph, args.points, args.min_score) for v in variants]
                agreement.add(masks)
                drawn = draw_row(photograph, [each.automatic for each in masks])
                pictures[args.out / f'{name}.jpg'] = encode_jpeg(drawn)
                bar.update()
            rows = [_with_metrics(row, agreement.metrics(number)) for number, row in enumerate(rows)]
    settings = dict(model=args.model, rounds=args.rounds)
    if agreement is not None:
        settings |= dict(
            pictures=len(pictures), points=args.points, min_score=args.min_score, prompts=agreement.prompts
        )
    _write(args.out, rows, pictures, environment_of(images, **settings))


def _variants(plugins: list[str], encoder: nn.Module) -> list[Variant]:
    """The full model, with fused attention, and a row a plugin."""
    plugins = plugins or default_plugins(encoder)
    return [Variant(FUSED), *(Variant(text, parse_reducer(text)) for text in plugins)]


def time_rows(encoder: nn.Module, variants: list[Variant], images: Tensor, rounds: int) -> list[Row]:
    """MACs, time and memory of the image encoder alone: the mask decoder sees whole tokens."""
    # Each ran before it is timed, to be counted; a pass of the larger encoders takes minutes.
    return benchmark_rows(encoder, variants, images, rounds, warmup=0)


def _with_metrics(row: Row, metrics: dict[str, float]) -> ReportRow:
    return ReportRow(
        **{**vars(row), 'metrics': metrics}, differences=metrics, intervals=dict.fromkeys(metrics), finite=True
    )


def _write(out: Path, rows: list[Row], pictures: dict[Path, bytes], environment: dict[str, Any]) -> None:
    """Prints the table, and writes figures and pictures, together or not at all."""
    figures = dict(environment=environment, rows=[row.as_json() for row in rows])
    write_together({**pictures, out / 'figures.json': json.dumps(figures, indent=1).encode()})
    print(format_table(rows))
    if pictures:
        print(f'{environment["prompts"]} of {len(pictures) * environment["points"] ** 2} prompts compared')
        print('pictures, left to right: the photograph; automatic masks of the full model, then of each row')
    print(f'written to {shown(out)}')
