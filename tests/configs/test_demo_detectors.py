"""The demo's trained detectors: what they find on held-out scenes, and what clustering takes from it."""

from pathlib import Path

import pytest
import torch

from demo.scenes.coco import write_coco
from fewtokens.measure.variants import Variant
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.openmmlab.test_set import TestSet

DEMO = Path(__file__).parents[2] / 'configs/demo'
MODELS = [
    ('mask-rcnn_swin_scenes', 'instances', {'box AP': 8.0, 'mask AP': 8.0}),
    ('mask2former_swin_scenes-panoptic', 'panoptic', {'PQ': 22.0}),
]
PLUGINS = ['Hourglass(after=7, grid=5, temperature=10.0)', 'SharedUpdate(after=7, grid=4)']
LOSS = 3.0
"""Points that clustering may lose: on so few scenes one object more or less is a point."""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_coco(folder, dict(validation=8))
    return folder


@pytest.mark.parametrize('name, kind, floors', MODELS, ids=[name for name, _, _ in MODELS])
def test_accuracy_on_held_out_scenes(data, tmp_path, name, kind, floors):
    config = load_config(DEMO / f'{name}.py')
    annotations = f'{data}/annotations/{kind}_validation'
    config.test_dataloader.dataset.data_root = str(data)
    config.test_evaluator.ann_file = f'{annotations}.json'
    if kind == 'panoptic':
        config.test_evaluator.seg_prefix = f'{annotations}/'
    weights = str(DEMO / f'{name}.pth')
    torch.load(weights, weights_only=True)
    model = build_model(config, weights)
    tests = TestSet(config, weights, tmp_path, batch=4)
    host = tests.evaluate(model, Variant('host + sdpa'))
    for metric, floor in floors.items():
        assert host.metrics[metric] > floor
    for plugin in PLUGINS:
        clustered = tests.evaluate(model, Variant(plugin, parse_plugin(plugin)))
        for metric in floors:
            assert abs(clustered.metrics[metric] - host.metrics[metric]) < LOSS
