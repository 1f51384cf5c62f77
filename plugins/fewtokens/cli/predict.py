"""Runs a folder of pictures through a model, with and without a plugin: overlays beside each other, with timings."""

from pathlib import Path

import numpy as np

from ..measure.files import shown
from ..measure.variants import make_variants
from ..openmmlab.config import load_config
from ..openmmlab.model import build_model
from ..openmmlab.predictions import predict_folder
from .config import choose_reducers, host_config
from .options import add_device_option, add_plugin_options, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('folder', type=Path, help='folder of pictures')
    add_plugin_options(parser)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/predictions'), help='folder for the overlays')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged pictures out and count them')
    add_device_option(parser)
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    variants = make_variants(choose_reducers(config, args.plugin))
    model = build_model(host_config(config), args.checkpoint, args.device)
    predictions, unreadable = predict_folder(config, model, variants, args.folder, args.out, args.skip_unreadable)
    medians = np.median([prediction.milliseconds for prediction in predictions], axis=0)
    for variant, milliseconds in zip(variants, medians):
        print(f'{variant.name}: {milliseconds:.1f} ms a picture (median of {len(predictions)})')
    if unreadable:
        print(f'{len(unreadable)} unreadable pictures left out: {", ".join(map(shown, unreadable))}')
    print(f'overlays: {shown(args.out / "index.html")}')
