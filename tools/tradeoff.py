"""Evaluates and times plugins side by side, and writes a report of what each saves and costs."""

from pathlib import Path

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.measure.tradeoff import write_tradeoff
from fewtokens.measure.variants import make_variants
from fewtokens.openmmlab.cli import make_parser, run
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.data import check_folders
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import parse_plugin


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--plugin', action='append', default=[], help='a reducer to compare; may be repeated')
    parser.add_argument('--half-resolution', action='store_true', help='a row for the host at half the input size')
    parser.add_argument('--out', help='folder of the report; the work folder if left out')
    parser.add_argument('--batch', type=int, default=4, help='images at a time, in evaluation and timing')
    parser.add_argument('--rounds', type=int, default=10, help='how many times each row is timed')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    plugins = {text: parse_plugin(text) for text in args.plugin}
    config = load_config(args.config, args.cfg_options)
    check_folders(config.test_dataloader.dataset)
    model = build_model(config, args.checkpoint, args.device)
    out = Path(args.out or args.work_dir or config.work_dir)
    variants = make_variants(plugins, args.half_resolution)
    title = Path(args.config).stem
    print(write_tradeoff(config, model, args.checkpoint, variants, out, args.batch, args.rounds, title))
    print(f'report: {out / "report.html"}')


if __name__ == '__main__':
    run(main)
