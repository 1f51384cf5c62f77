"""The published GFLOPs of depth are twice the whole model's MACs, of one image of 352 x 1216 (KITTI) or 480 x 640."""

import csv
import re
from pathlib import Path

import pytest
import torch

import fewtokens
from fewtokens.measure.variants import HOST, Variant, count_rows
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import build_reducer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/hourglass').glob('dpt-hybrid*.py'))
DATASETS = {'kitti': ('KITTI', (352, 1216)), 'nyu': ('NYUv2', (480, 640))}


@pytest.fixture(scope='module')
def model():
    """The same for both data sets: what is made of its output costs nothing."""
    with torch.device('meta'):
        return build_model(load_config(CONFIGS[0]), device='meta')


def published(dataset):
    """GMACs and RMSE by the published block's index and the grid; None and no grid for the host."""
    with open(ROOT / 'tests/data/expedit.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['task'] == 'depth' and row['dataset'] == dataset]
    rows = [row for row in rows if row['method'] in ('none', 'Hourglass')]
    names = ('gflops_published', 'gmacs_published')
    (name,) = (name for name in names if name in rows[0])
    return {(row['after'], row['grid'] if row['after'] else ''): (float(row[name]) / 2, row['value']) for row in rows}


def test_every_published_row_has_a_config():
    assert len(CONFIGS) == sum(len(published(dataset)) - 1 for dataset, _ in DATASETS.values()) == 6


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_published_row(path, model):
    dataset, size = DATASETS[re.search('kitti|nyu', path.stem)[0]]
    config = load_config(path)
    (hook,) = config.custom_hooks
    reducer = build_reducer(hook['reducer'])
    assert (reducer.k, reducer.temperature) == (1, 1.0)
    grid = f'{reducer.grid[0]}x{reducer.grid[1]}'
    assert path.stem.endswith(f'_{reducer.after}-{grid}')
    rows = published(dataset)
    # What is published is the index of the block after which tokens are clustered.
    (host, host_error), (expected, error) = rows['', ''], rows[str(reducer.after - 1), grid]
    errors = f'{float(host_error):.3f} to {float(error):.3f} RMSE.'
    told = f'Published: {host:.1f} to {expected:.1f} GMACs at {size[0]} x {size[1]}, {errors}'
    assert told in path.read_text()
    assert config.model.network == load_config(CONFIGS[0]).model.network
    variants = [Variant(HOST, sdpa=False), Variant('plugin', reducer)]
    macs = [row.macs / 1e9 for row in count_rows(model, variants, torch.empty(1, 3, *size, device='meta'))]
    assert macs[0] == pytest.approx(host, rel=0.03)
    assert macs[1] == pytest.approx(expected, rel=0.03)
    assert macs[1] / macs[0] <= 1.03 * expected / host


@torch.no_grad()
def test_the_largest_grid_has_more_rows_than_there_are_tokens(model):
    """28 x 28 on 22 x 76: never unreduced."""
    config = load_config(ROOT / 'configs/hourglass/dpt-hybrid_kitti_7-28x28.py')
    with fewtokens.attach(model, build_reducer(config.custom_hooks[0]['reducer'])) as attachment:
        model(torch.empty(1, 3, 352, 1216, device='meta'), mode='tensor')
    assert (attachment.passes, attachment.skipped) == (1, 0)
    assert attachment.token_counts == (22 * 76, 28 * 28)
