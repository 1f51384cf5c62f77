"""The committed configs: they load, and save what was published."""

import csv
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import fewtokens
from fewtokens.measure.variants import FUSED, HOST, Variant, count_rows
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import build_reducer

ROOT = Path(__file__).parents[2]
HOURGLASS = sorted((ROOT / 'configs/hourglass').glob('segmenter*.py'))
SWIN = sorted((ROOT / 'configs/hourglass').glob('*swin*.py'))
SHARED_UPDATE = sorted((ROOT / 'configs/shared_update').glob('*.py'))
DATASETS = {'ade20k': 'ADE20K', 'cityscapes': 'Cityscapes', 'pascal-context': 'PascalContext'}


def published_ratio(name, reducer):
    """MACs with Hourglass over MACs without, as published."""
    dataset = next(full for short, full in DATASETS.items() if short in name)
    with open(ROOT / 'tests/data/expedit.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['dataset'] == dataset and 'Segmenter' in row['model']]
    grid = f'{reducer.grid[0]}x{reducer.grid[1]}'
    host = next(row for row in rows if row['method'] == 'none')
    ours = next(row for row in rows if row['after'] == str(reducer.after) and row['grid'] == grid)
    return float(ours['gmacs_published']) / float(host['gmacs_published']), host


def plugin_of(config):
    (hook,) = (hook for hook in config.custom_hooks if hook['type'] == 'FewTokensHook')
    return build_reducer(hook['reducer'])


def count(config, reducer):
    side = config.crop_size[0]
    model = build_model(config, device='meta')
    variants = [Variant(HOST, sdpa=False), Variant(FUSED), Variant('plugin', reducer)]
    return [row.macs for row in count_rows(model, variants, torch.empty(1, 3, side, side, device='meta'))]


def test_every_published_setting_has_a_config():
    assert len(HOURGLASS) == 9 and len(SWIN) == 7


@pytest.mark.parametrize('path', HOURGLASS, ids=lambda path: path.stem)
def test_published_macs(path):
    config = load_config(path)
    reducer = plugin_of(config)
    ratio, host = published_ratio(path.stem, reducer)
    macs = count(config, reducer)
    assert macs[0] == macs[1]
    assert macs[2] / macs[0] <= 1.03 * ratio
    assert macs[0] / 1e9 == pytest.approx(float(host['gmacs_published']), rel=0.05)


@pytest.mark.parametrize('path', SWIN, ids=lambda path: path.stem)
def test_swin_settings_are_the_published_ones(path):
    config = load_config(path)
    reducer = plugin_of(config)
    with open(ROOT / 'tests/data/expedit.csv', newline='') as file:
        rows = [
            row for row in csv.DictReader(file) if row['model'].split()[0].lower() == re.split('[-_]', path.stem)[0]
        ]
    published = {(row['after'], row['grid'], row['gmacs_published']) for row in rows}
    docstring = path.read_text().partition(' GMACs')[0].split()[-1]
    assert (str(reducer.after), f'{reducer.grid[0]}x{reducer.grid[1]}', docstring) in published
    with DefaultScope.overwrite_default_scope(config.default_scope):
        backbone = MODELS.build(config.model.backbone).to('meta')
    variants = [Variant(HOST, sdpa=False), Variant(FUSED), Variant('plugin', reducer)]
    macs = [row.macs for row in count_rows(backbone, variants, torch.empty(1, 3, 768, 1152, device='meta'))]
    # 18 blocks in the third stage, after 4 in the first two, hold 0.73 of the backbone's MACs; no window is padded.
    clustered = (22 - reducer.after) / 18 * (1 - reducer.grid[0] ** 2 / 144)
    assert macs[0] == macs[1] and macs[2] / macs[0] == pytest.approx(1 - 0.73 * clustered, abs=0.01)


@pytest.mark.parametrize('path', SHARED_UPDATE, ids=lambda path: path.stem)
def test_shared_update_costs_less(path):
    config = load_config(path)
    macs = count(config, plugin_of(config))
    assert isinstance(plugin_of(config), fewtokens.SharedUpdate) and macs[2] < 0.55 * macs[0]


@pytest.mark.parametrize('phase', ['128x128', '256x256'])
def test_demo_configs_build(phase):
    config = load_config(ROOT / f'configs/demo/segmenter_scenes-{phase}.py')
    model = build_model(config, ROOT / 'configs/demo/segmenter_scenes.pth')
    assert len(model.backbone.layers) == 12 and sum(p.numel() for p in model.parameters()) < 3e6
