"""A tiny DPT on KITTI's layout through the tools, as any other model."""

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from depth import DRIVE, TINY, depth, picture, write_kitti
from mmengine.registry import DefaultScope

from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

CONFIGS = Path(__file__).parents[2] / 'configs'
BASE = CONFIGS / '_base_/dpt-hybrid_kitti.py'
CONFIG = """
_base_ = '{base}'
model = dict(network=dict(_delete_=True, **{network}), scale=1.0, shift=0.05)
test_dataloader = dict(num_workers=0, dataset=dict(data_root='{folder}'))
work_dir = '{folder}/work'
"""
PAIRS = """
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='DepthDataset',
        data_root='{folder}/pairs',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadDepthAnnotation', depth_rescale_factor=1 / 256),
            dict(type='PackDepthInputs'),
        ],
    )
)
test_evaluator = dict(crop=None)
"""
PLUGIN, SMALL = 'Hourglass(after=1, grid=(28, 28), k=1)', 'Hourglass(after=1, grid=(4, 5), k=1)'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kitti')
    write_kitti(folder)
    config = folder / 'tiny.py'
    config.write_text(CONFIG.format(base=BASE, network=TINY, folder=folder))
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        torch.save(build_model(load_config(config)).state_dict(), folder / 'tiny.pth')
    return config, folder / 'tiny.pth'


def test_test(run, files, tmp_path):
    out, drawn = tmp_path / 'out', tmp_path / 'drawn'
    result = run('test.py', *files, '--plugin', PLUGIN, '--sdpa', '--out', out, '--show-dir', drawn)
    assert result.returncode == 0, result.err
    assert re.search(r'delta1 \d+\.\d\d, RMSE \d+\.\d\d\d', result.out + result.err)
    assert '1672 tokens became 784 after block 1 in 2 passes' in result.out + result.err
    predictions = sorted(out.iterdir())
    assert [file.name for file in predictions] == [
        f'2011_09_26_{DRIVE}_image_02_data_{number:010}.png' for number in (5, 69)
    ]
    depth = cv2.imread(str(predictions[0]), cv2.IMREAD_UNCHANGED)
    # In the whole frame: nothing is predicted outside the crop.
    assert depth.shape == (375, 1242) and not depth[:23].any() and not depth[:, 1229:].any()
    assert (depth[23:, 13:1229] > 0).all()
    assert list(drawn.rglob('*.png'))


def test_tradeoff(run, files, tmp_path):
    for number in range(3):
        picture(tmp_path / f'pairs/images/{number}.jpg', (90, 120), number)
        depth(tmp_path / f'pairs/depth/{number}.png', (90, 120), 256, number)
    config = tmp_path / 'pairs.py'
    config.write_text(f"_base_ = '{files[0]}'\n" + PAIRS.format(folder=tmp_path))
    options = ['--plugin', SMALL, '--rounds', '1', '--out', tmp_path]
    result = run('tradeoff.py', config, files[1], *options)
    assert result.returncode == 0, result.err
    rows = json.loads((tmp_path / 'tradeoff.json').read_text())['rows']
    assert [row['name'] for row in rows] == ['host', 'host + sdpa', SMALL]
    for row in rows:
        assert list(row['metrics'])[:3] == ['delta1', 'RMSE', 'AbsRel'] and row['finite']
    assert rows[2]['macs'] < 0.99 * rows[0]['macs']
    assert rows[2]['differences'].keys() == rows[2]['intervals'].keys() == {'delta1', 'RMSE'}
    assert all(len(interval) == 2 for interval in rows[2]['intervals'].values())
    with open(tmp_path / 'tradeoff.csv', newline='') as file:
        assert 'RMSE difference' in next(csv.reader(file))
    page = (tmp_path / 'report.html').read_text()
    # Each of three pictures: itself, the truth, the host, the plugin and its clusters.
    captions = re.findall('<figcaption>(.*?)</figcaption>', page)
    assert captions[:4] == ['image', 'ground truth', 'host', SMALL] and len(captions) == 15
    assert re.fullmatch(r'its \d+ clusters', captions[4])


def test_predict_and_benchmark(run, files, tmp_path):
    picture(tmp_path / 'pictures/frame.png', (375, 1242), 7)
    result = run('predict.py', *files, tmp_path / 'pictures', '--plugin', PLUGIN, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.err
    drawn = cv2.imread(str(tmp_path / 'out/frame.png.jpg'))
    # The picture, three predictions and the clusters beside each other; black where nothing is predicted.
    picture_width = drawn.shape[1] // 5
    assert drawn.shape[0] % 375 == 0 and np.abs(drawn[:20, picture_width : 2 * picture_width].astype(int)).max() < 20
    result = run('benchmark.py', files[0], '--shape', '352', '1216', '--plugin', PLUGIN, '--macs-only')
    assert result.returncode == 0 and PLUGIN in result.out, result.err


ROOMS = """
_base_ = '{base}'
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{folder}/rooms'))
val_dataloader = test_dataloader = dict(dataset=dict(data_root='{folder}/rooms'))
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2))
load_from = '{folder}/dinov2.pth'
work_dir = '{folder}/work'
"""


def test_from_the_wheel_to_the_report(run, tmp_path):
    """The real backbone, trained on rooms and compared on them, in small."""
    rooms = ['--format', 'depth', '--training', '2', '--validation', '2', '--size', '70']
    assert run('make_scenes.py', tmp_path / 'rooms', *rooms).returncode == 0
    assert run('read_dinov2.py', tmp_path / 'dinov2.pth').returncode == 0
    config = tmp_path / 'rooms.py'
    text = ROOMS.format(base=CONFIGS / 'demo/dinov2_vit-s_rooms.py', folder=tmp_path)
    config.write_text(text)
    small = '--cfg-options', 'train_dataloader.dataset.pipeline.1.scale=(70,70)'
    result = run('train.py', config, *small)
    assert result.returncode == 0, result.err
    checkpoint = tmp_path / 'work/iter_2.pth'
    weights, real = (
        torch.load(path, weights_only=False)['state_dict'] for path in (checkpoint, tmp_path / 'dinov2.pth')
    )
    assert all(torch.equal(weights[name], value) for name, value in real.items())
    plugins = ['--plugin', 'Hourglass(after=4, grid=3)', '--plugin', 'SharedUpdate(after=4, grid=3)']
    result = run('tradeoff.py', config, checkpoint, *plugins, '--rounds', '1', '--out', tmp_path / 'report')
    assert result.returncode == 0, result.err
    rows = json.loads((tmp_path / 'report/tradeoff.json').read_text())['rows']
    assert all(row['finite'] and row['metrics']['RMSE'] > 0 for row in rows)
    assert rows[3]['macs'] < 0.9 * rows[0]['macs']
