"""Trains a model of an mmseg, mmdet or text-video retrieval config, with or without a plugin."""

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner, find_latest_checkpoint

from ..measure.files import naming_full_disk, shown
from ..openmmlab.checkpoints import load_from_local, make_mmengine_safe
from ..openmmlab.data import check_folders, check_not_empty, check_samples, check_training
from ..openmmlab.hook import FewTokensHook, never_took_effect
from ..openmmlab.runner import ToolRunner
from .config import prepare_config
from .options import add_run_options, make_parser


def main() -> None:
    parser = make_parser(__doc__, checkpoint=False)
    add_run_options(parser)
    parser.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work folder')
    text = 'load all data once, leave damaged samples out and count them'
    parser.add_argument('--skip-unreadable', action='store_true', help=text)
    args = parser.parse_args()
    config = prepare_config(args)
    for loader in ('train_dataloader', 'val_dataloader'):
        if config.get(loader):
            check_folders(config[loader].dataset)
            check_not_empty(config[loader].dataset)
    if args.resume and (latest := find_latest_checkpoint(config.work_dir)):
        # MMEngine goes on from load_from if there is one: from a config's earlier phase, not from where it stopped.
        config.resume, config.load_from = True, latest
    check_start(config)
    if args.amp:
        # MMEngine's own mixed precision needs a GPU.
        config.optim_wrapper.type = 'AmpOptimWrapper' if torch.cuda.is_available() else 'AutocastOptimWrapper'
    with naming_full_disk(config.work_dir):
        runner = ToolRunner.from_cfg(config)
        check_data(runner, args.skip_unreadable)
        runner.train()
    for hook in runner.hooks:
        if isinstance(hook, FewTokensHook) and hook.reducer is not None and hook.took_effect is False:
            raise ValueError(never_took_effect(hook.reducer))


def check_start(config: Config) -> None:
    """Reads the file that a training starts or goes on from before data and model are built."""
    make_mmengine_safe()
    source = config.get('load_from')
    if not source or '://' in source:
        return
    checkpoint = load_from_local(source)
    if not config.get('resume'):
        return
    missing = [name for name in ('meta', 'message_hub', 'optimizer') if not isinstance(checkpoint.get(name), dict)]
    missing = missing or [f'meta.{name}' for name in ('epoch', 'iter') if name not in checkpoint['meta']]
    if missing:
        raise ValueError(
            f'{source!r} has no {" and no ".join(missing)}, without which a training cannot go on: with resume=False '
            'it starts from the weights'
        )


def check_data(runner: Runner, skip: bool) -> None:
    """Finds what would end a training after hours, or leaves it out."""
    for name in ('_train_dataloader', '_val_dataloader'):
        loader = getattr(runner, name)
        if not loader:
            continue
        # The runner is given the data set, not its config: samplers count what is left of it.
        dataset = DATASETS.build(loader['dataset'])
        setattr(runner, name, {**loader, 'dataset': dataset})
        # Validation data are read again and again: once more at the start is little.
        whole = name == '_val_dataloader' and isinstance(dataset, BaseDataset)
        check = check_samples if whole else check_training
        if skipped := check(dataset, skip, loader.get('num_workers', 0)):
            names = ', '.join(map(shown, skipped[:3]))
            print_log(f'{len(skipped)} unreadable samples are left out: {names}', logger='current')
