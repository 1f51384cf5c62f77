"""Compares segment clusterings with the same CLIP unclustered, in one run: MACs, time, memory. Random weights."""

import argparse

import torch

from ..measure.files import write_json
from ..measure.training import training_rows
from ..measure.variants import benchmark_rows, environment_of, make_variants
from ..report.table import format_table
from ..video import VideoEncoder
from ..video.clip_models import build_clip
from ..video.clustered import VideoPlugin
from .options import HelpFormatter, add_timing_options, at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('--clip', default='ViT-B-32', help="a model of open_clip's, by name or a config file")
    text = 'a clustering to compare, such as "SegmentClustering(segments=6, clusters=49, after=6)"; may be repeated'
    parser.add_argument('--plugin', action='append', default=[], help=text)
    parser.add_argument('--frames', type=at_least(1), default=12, help='of each clip')
    parser.add_argument('--batch', type=at_least(1), default=2, help='clips at a time')
    parser.add_argument('--training', action='store_true', help="a training step's peak memory as well")
    add_timing_options(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    variants = make_variants({text: VideoPlugin.parse(text) for text in args.plugin})
    dtype = getattr(torch, args.dtype)
    clip = build_clip(config=args.clip) if args.clip.endswith('.json') else build_clip(args.clip)
    encoder = VideoEncoder(clip.visual).to(args.device, dtype).eval()
    size = encoder.visual.image_size
    video = torch.randn(args.batch, args.frames, 3, *size, dtype=dtype, device=args.device)
    rows = benchmark_rows(encoder, variants, video, args.rounds, args.warmup)
    print(f'{args.clip}, {args.batch} clips of {args.frames} x {size[0]} x {size[1]}, {args.dtype}; figures of a clip')
    print(format_table(rows))
    if args.training:
        rows = training_rows(rows, encoder.train(), variants, video)
        measured = [(row.name, row.training_peak_mib) for row in rows if row.training_peak_mib]
        for name, peak in measured:
            first, most = measured[0]
            print(f'{name}: a training step takes {peak:.0f} MiB, {1 - peak / most:.0%} less than {first}')
    if args.json:
        settings = dict(clip=args.clip, weights='random', rounds=args.rounds, warmup=args.warmup)
        figures = [row.as_json() for row in rows]
        write_json(args.json, dict(environment=environment_of(video, **settings), rows=figures))
