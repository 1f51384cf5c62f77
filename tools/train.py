"""Trains an mmseg or mmdet config."""

import argparse
from pathlib import Path

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('config')
parser.add_argument('--work-dir')
parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
args = parser.parse_args()
cfg = Config.fromfile(args.config)
cfg.merge_from_dict(args.cfg_options)
cfg.work_dir = args.work_dir or f'work_dirs/{Path(args.config).stem}'
Runner.from_cfg(cfg).train()
