"""Every config in the installed mmdet and mmseg wheels whose backbone is of a known family takes the plugin.

Models are built on the meta device, with Swin's stages made shallow, and the backbone runs there: nothing is computed.
"""

import csv
import functools
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import fewtokens
from fewtokens.hosts import find_hosts
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

FAMILIES = ('SwinTransformer', 'VisionTransformer', 'BEiT', 'MAE')
LISTED = Path(__file__).parents[1] / 'data' / 'stock_configs.csv'
EXPECTED = {'mmdet': (99, 100, 812), 'mmseg': (58, 59, 671)}
"""Configs that take the plugin, that have a backbone of a known family, and all that load."""


def find_backbones(node):
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] in FAMILIES:
            yield node
        for value in node.values():
            yield from find_backbones(value)


def configs_of(package):
    """Names and configs that load; and names of those that don't."""
    root, broken, found = Path(package.__file__).parent / '.mim/configs', [], {}
    for file in sorted(root.rglob('*.py')):
        if '_base_' in file.parts:
            continue
        name = f'{package.__name__}::{file.relative_to(root)}'
        try:
            found[name] = Config.fromfile(file)
        except Exception:  # noqa: BLE001  what a broken config raises can be anything
            broken.append(name)
    return found, broken


def build_small(name):
    config = load_config(name)
    for backbone in find_backbones(config.model):
        if 'depths' in backbone:
            backbone.depths = [1, 1] + [2] * (len(backbone.depths) - 2)
    if 'language_model' not in config.model:
        return build_model(config, device='meta')
    # BERT's weights come over the network: the backbone alone.
    with DefaultScope.overwrite_default_scope(name.partition('::')[0]):
        return MODELS.build(config.model.backbone).to('meta')


def takes_the_plugin(name):
    model = build_small(name)
    reducer = fewtokens.Hourglass(after=1, grid=4)
    with fewtokens.attach(model, reducer) as attachment, torch.no_grad():
        (host,) = find_hosts(model)
        side = getattr(host.backbone, 'img_size', (224, 224))[0]
        host.backbone(torch.empty(1, 3, side, side, device='meta'))
        return attachment.passes == 1


@functools.lru_cache
def listed():
    with open(LISTED, newline='') as file:
        return {row['config']: row['reason'] for row in csv.DictReader(file)}


@pytest.mark.parametrize('package', [mmdet, mmseg], ids=lambda package: package.__name__)
def test_every_config_takes_the_plugin_or_is_listed_with_a_reason(package):
    configs, broken = configs_of(package)
    failed = {name: 'does not load' for name in broken if name not in listed()}
    known = [name for name, config in configs.items() if any(find_backbones(config.get('model', {})))]
    taken = 0
    for name in known:
        if name in listed():
            continue
        try:
            if takes_the_plugin(name):
                taken += 1
            else:
                failed[name] = 'never took effect'
        except Exception as error:  # noqa: BLE001  all of them are told at once
            failed[name] = f'{type(error).__name__}: {error}'
    assert not failed, '\n'.join(f'{name},{reason}'[:300] for name, reason in failed.items())
    assert (taken, len(known), len(configs)) == EXPECTED[package.__name__]
