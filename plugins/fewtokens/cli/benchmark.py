"""Compares plugins with the untouched host, side by side in one run: MACs, time, memory. Random weights will do."""

import torch
from torch import nn

from ..measure.files import shown, write_json
from ..measure.rows import Row
from ..measure.variants import Variant, benchmark_rows, count_rows, environment_of, make_variants
from ..openmmlab.config import load_config
from ..openmmlab.model import build_model
from ..report.table import format_table
from .config import choose_reducers, host_config
from .options import add_plugin_options, add_timing_options, at_least, make_parser

WHOLE, BACKBONE = 'the whole model', 'the backbone alone'
"""What MACs can be of."""


def count_on_meta(model: nn.Module, variants: list[Variant], inputs: torch.Tensor) -> tuple[list[Row], str]:
    """Rows, and what they are of: the backbone alone where the rest computes as much as it finds in an image."""
    try:
        # MACs are the same in any dtype; not every host can run in all of them.
        return count_rows(model, variants, inputs.float()), WHOLE
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        backbone = getattr(getattr(model, 'detector', model), 'backbone', None)
        if 'meta' in reason and backbone is not None:
            return count_on_meta(backbone, variants, inputs)[0], BACKBONE
        size = f'{inputs.shape[-2]} x {inputs.shape[-1]}'
        raise ValueError(f'{type(model).__name__} cannot run on inputs of {size}: {reason}') from error


def in_int8(model: nn.Module) -> nn.Module:
    """A copy whose linear layers have weights in int8 and quantise what they are given, on a CPU."""
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(model, {nn.Linear}, torch.qint8)


def main() -> None:
    parser = make_parser(__doc__, checkpoint=False)
    parser.add_argument('--checkpoint', help="the model's weights; random ones if left out")
    parser.add_argument(
        '--shape', type=at_least(1), nargs=2, metavar=('H', 'W'), default=(640, 640), help='of the input'
    )
    add_plugin_options(parser)
    parser.add_argument('--macs-only', action='store_true', help='count, without weights or inputs in memory')
    parser.add_argument('--batch', type=at_least(1), default=1, help='images at a time; frames of a video')
    add_timing_options(parser)
    parser.add_argument('--compile', action='store_true', help='rows of the fused host and of each plugin compiled too')
    parser.add_argument('--int8', action='store_true', help='linear layers in int8, quantised as they run, on a CPU')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = load_config(args.config, args.cfg_options)
    if config.model.type == 'ClipRetrieval':
        raise ValueError(f'{args.config} is of videos: benchmark-video measures those')
    if args.macs_only and (args.compile or args.int8):
        raise ValueError('--compile and --int8 change what is timed, and --macs-only times nothing')
    variants = make_variants(choose_reducers(config, args.plugin), compiled=args.compile)
    device = 'meta' if args.macs_only else args.device
    model = build_model(host_config(config), args.checkpoint, device)
    dtype = getattr(torch, args.dtype)
    inputs = torch.empty(args.batch, 3, *args.shape, dtype=dtype, device=device)
    if args.macs_only:
        rows, counted = count_on_meta(model, variants, inputs)
    else:
        counted, model = WHOLE, model.to(dtype)
        timed = in_int8(model) if args.int8 else model
        rows = benchmark_rows(timed, variants, inputs.normal_(), args.rounds, args.warmup, counted=model)
    weights = args.checkpoint or 'random'
    size, kind = f'{args.batch} x 3 x {args.shape[0]} x {args.shape[1]}', 'int8 and ' * args.int8 + args.dtype
    print(f'{shown(args.config)}, {size}, {kind}, weights: {weights}')
    if counted == BACKBONE:
        print(f'of {counted}: the rest computes as much as it finds in an image, which --macs-only does not have')
    print(format_table(rows))
    if args.json:
        settings = dict(config=args.config, weights=weights, counted=counted, int8=args.int8)
        settings |= dict(rounds=args.rounds, warmup=args.warmup)
        figures = [row.as_json() for row in rows]
        write_json(args.json, dict(environment=environment_of(inputs, **settings), rows=figures))
