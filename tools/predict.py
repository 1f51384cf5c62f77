"""Runs a folder of pictures through a model, with and without a plugin: overlays beside each other, with timings."""

from pathlib import Path

import numpy as np

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.cli.options import add_plugin_options, choose_reducers, make_parser, run, usable_device
from fewtokens.measure.files import shown
from fewtokens.measure.variants import make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.predictions import predict_folder


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('folder', type=Path, help='folder of pictures')
    add_plugin_options(parser)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/predictions'), help='folder for the overlays')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged pictures out and count them')
    parser.add_argument('--device', type=usable_device, default='cpu')
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    variants = make_variants(choose_reducers(config, args.plugin))
    model = build_model(config, args.checkpoint, args.device)
    predictions, unreadable = predict_folder(config, model, variants, args.folder, args.out, args.skip_unreadable)
    medians = np.median([prediction.milliseconds for prediction in predictions], axis=0)
    for variant, milliseconds in zip(variants, medians):
        print(f'{variant.name}: {milliseconds:.1f} ms a picture (median of {len(predictions)})')
    if unreadable:
        print(f'{len(unreadable)} unreadable pictures left out: {", ".join(map(shown, unreadable))}')
    print(f'overlays: {shown(args.out / "index.html")}')


if __name__ == '__main__':
    run(main)
