"""A real backbone on CamVid's layout, from its weights to the report, in small."""

import json
from pathlib import Path

import pytest
import torch
from camvid import write_camvid

from demo.read_dinov2 import PREFIX

CONFIGS = Path(__file__).parents[2] / 'configs/camvid'
SMALL = """
_base_ = '{base}'
small = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(75, 56), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}', pipeline=small)
)
val_dataloader = test_dataloader = dict(dataset=dict(data_root='{data}', pipeline=small))
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2))
load_from = '{weights}'
work_dir = '{work}'
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('camvid')
    write_camvid(folder / 'data')
    return folder


@pytest.fixture
def small(folder):
    def write(kind, weights):
        base = CONFIGS / f'dinov2_vit-s_{kind}-504x672.py'
        path, work = folder / f'{kind}.py', folder / kind
        path.write_text(SMALL.format(base=base, data=folder / 'data', weights=weights, work=work))
        return path, work / 'iter_2.pth'

    return write


def weights_of(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_from_the_wheel_to_the_report(run, folder, small):
    weights = folder / 'real/dinov2.pth'
    result = run('read_dinov2.py', weights)
    assert result.returncode == 0 and '172 tensors' in result.out, result.err
    real = weights_of(weights)
    config, frozen = small('frozen', weights)
    assert run('train.py', config).returncode == 0
    trained = weights_of(frozen)
    assert {key for key in trained if not key.startswith('decode_head.')} == set(real)
    assert all(torch.equal(trained[key], real[key]) for key in real)
    config, tuned = small('tuned', frozen)
    assert run('train.py', config).returncode == 0
    layer = f'{PREFIX}blocks.0.mlp.fc1.weight'
    assert not torch.equal(weights_of(tuned)[layer], real[layer])
    # 56 x 75 pixels are filled up to 4 x 6 tokens; a checkpoint is for either config.
    plugin = ['--plugin', 'SharedUpdate(after=2, grid=(2, 3))']
    result = run('test.py', small('frozen', weights)[0], tuned, *plugin)
    assert result.returncode == 0 and '24 tokens became 6 after block 2 in 2 passes' in result.out, result.err
    result = run('tradeoff.py', config, tuned, *plugin, '--rounds', 1, '--batch', 1, '--out', folder / 'report')
    assert result.returncode == 0, result.err
    rows = json.loads((folder / 'report/tradeoff.json').read_text())['rows']
    assert len(rows) == 3 and 'mIoU' in rows[2]['metrics'] and rows[2]['macs'] < rows[1]['macs']


def test_what_is_missing_is_named(fails, folder, small, tmp_path):
    config, _ = small('frozen', tmp_path / 'none.pth')
    fails('train.py', config, message=f"'{tmp_path}/none.pth'")
    options = ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}']
    fails('train.py', config, *options, message=f"no '{tmp_path}/train': set data_root")


@pytest.mark.parametrize('kind', ['frozen', 'tuned'])
def test_sizes_of_the_committed_configs(kind):
    from fewtokens.openmmlab.config import load_config

    for size, scale in (('504x672', (672, 504)), ('756x1008', (1008, 756))):
        config = load_config(CONFIGS / f'dinov2_vit-s_{kind}-{size}.py')
        for loader in (config.val_dataloader, config.test_dataloader):
            assert loader.dataset.pipeline[1].scale == scale and loader.dataset.data_root == 'data/camvid'
        assert config.test_dataloader.dataset.data_prefix.img_path == 'test'
        assert config.model.backbone.type == ('FrozenTIMMBackbone' if kind == 'frozen' else 'TIMMBackbone')
