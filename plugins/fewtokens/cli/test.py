"""Evaluates a model of an mmseg, mmdet or text-video retrieval config on its test set, with or without a plugin."""

from ..measure.files import naming_full_disk
from ..openmmlab.evaluate import test
from .config import prepare_config
from .options import add_run_options, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add_run_options(parser)
    parser.add_argument(
        '--out', help='folder for the predictions (mmseg), .pkl for them (mmdet) or for embeddings (videos)'
    )
    parser.add_argument('--show-dir', help='folder for pictures of predictions, for videos a page of what texts find')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged samples out and count them')
    args = parser.parse_args()
    config = prepare_config(args)
    with naming_full_disk(config.work_dir, args.out, args.show_dir):
        test(config, args)
