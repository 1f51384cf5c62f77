"""A tiny data set, and a config for a tiny Segmenter on it."""

from pathlib import Path

import pytest
import torch
from models import randomize

from demo.scenes.ade20k import write_ade20k
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

CONFIG = """
custom_imports = dict(imports=['fewtokens.openmmlab'])
_base_ = '{base}'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(img_size=(64, 64), embed_dims=32, num_layers=4),
    decode_head=dict(in_channels=32, channels=32, embed_dims=32),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}', pipeline=test_pipeline)
)
test_dataloader = dict(dataset=dict(data_root='{data}', pipeline=test_pipeline))
val_dataloader = test_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
optim_wrapper = dict(type='OptimWrapper')
default_hooks = dict(checkpoint=dict(interval=2))
load_from = None
work_dir = '{work}'
custom_hooks = []
"""


def write_config(folder: Path, data: Path) -> Path:
    base = Path(__file__).parents[2] / 'configs/demo/segmenter_scenes-256x256.py'
    path = folder / 'tiny.py'
    path.write_text(CONFIG.format(base=base, data=data, work=folder / 'work'))
    return path


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """A folder with four training and three held-out scenes of 64 x 64."""
    folder = tmp_path_factory.mktemp('scenes')
    write_ade20k(folder, dict(training=4, validation=3), size=64)
    return folder


@pytest.fixture
def config_file(tmp_path, scenes):
    return write_config(tmp_path, scenes)


@pytest.fixture
def checkpoint(tmp_path, config_file):
    """Random weights of the tiny config's model."""
    model = randomize(build_model(load_config(config_file)))
    path = tmp_path / 'tiny.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij'), palette=[[i, 20 * i, 255 - i] for i in range(10)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
