"""Trains a model of an mmseg or mmdet config, with or without a plugin."""

import torch
from mmengine.runner import Runner

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.openmmlab.cli import add_run_options, make_parser, prepare_config, run
from fewtokens.openmmlab.data import check_folders


def main() -> None:
    parser = make_parser(__doc__, checkpoint=False)
    add_run_options(parser)
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work folder')
    args = parser.parse_args()
    config = prepare_config(args)
    check_folders(config.train_dataloader.dataset)
    config.resume = args.resume
    if args.amp:
        # MMEngine's own mixed precision needs a GPU.
        config.optim_wrapper.type = 'AmpOptimWrapper' if torch.cuda.is_available() else 'AutocastOptimWrapper'
    Runner.from_cfg(config).train()


if __name__ == '__main__':
    run(main)
