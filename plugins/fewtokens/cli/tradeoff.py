"""Evaluates and times plugins side by side, and writes a report of what each saves and costs."""

from pathlib import Path

from ..measure.equal_cost import choose_pairs
from ..measure.files import shown
from ..measure.variants import make_variants
from ..openmmlab.config import load_config
from ..openmmlab.data import check_test_data
from ..openmmlab.model import build_model
from ..openmmlab.test_set import TestSet
from ..openmmlab.tradeoff import write_tradeoff
from .config import choose_reducers, host_config
from .options import add_device_option, add_plugin_options, at_least, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add_plugin_options(parser)
    parser.add_argument('--half-resolution', action='store_true', help='a row for the host at half the input size')
    text = (
        'methods to compare where they cost the same: each row of METHOD with that of OTHER nearest in MACs, within a '
        'tenth; may be repeated. Without it each method is compared with those that were listed before it'
    )
    parser.add_argument('--equal-cost', action='append', nargs=2, default=[], metavar=('METHOD', 'OTHER'), help=text)
    parser.add_argument('--out', help='folder of the report; the work folder if left out')
    parser.add_argument('--batch', type=at_least(1), default=4, help='images at a time, in evaluation and timing')
    parser.add_argument('--rounds', type=at_least(1), default=10, help='how many times each row is timed')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged samples out and count them')
    add_device_option(parser)
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    variants = make_variants(choose_reducers(config, args.plugin), args.half_resolution)
    pairs = choose_pairs(variants, args.equal_cost)
    config = host_config(config)
    check_test_data(config)
    model = build_model(config, args.checkpoint, args.device)
    out = Path(args.out or args.work_dir or config.work_dir)
    tests = TestSet(config, args.checkpoint, out, args.batch, args.skip_unreadable)
    title = Path(args.config).stem
    print(write_tradeoff(model, variants, tests, out, args.batch, args.rounds, title, pairs))
    print(f'report: {shown(out / "report.html")}')
