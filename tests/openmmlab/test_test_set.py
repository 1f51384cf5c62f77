import shutil

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from fewtokens.measure.variants import make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.openmmlab.test_set import TestSet


def test_metrics_are_those_of_mmengines_own_test_and_areas_add_up_to_them(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    tests = TestSet(config, str(checkpoint), tmp_path, batch=2)
    host, _, plugin, half = make_variants({'AvgPool(2, 4)': parse_plugin('AvgPool(2, 4)')}, half=True)
    found = tests.evaluate(model, host)
    runner = Runner.from_cfg(load_config(config_file))
    runner.model.load_state_dict(model.state_dict())
    expected = runner.test()
    assert next(iter(found.metrics)) == 'mIoU' and found.metrics == pytest.approx(expected, abs=0.02) and found.finite
    areas = found.statistics['mIoU']
    assert areas.headline(np.ones((1, 3))) == pytest.approx(found.metrics['mIoU'], abs=0.01) and areas.samples == 3
    for other in (plugin, half):
        assert not np.array_equal(tests.evaluate(model, other).statistics['mIoU'].intersections, areas.intersections)


def test_an_evaluation_is_not_run_twice(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    (host, *_) = make_variants({})
    first = TestSet(config, str(checkpoint), tmp_path, 1).evaluate(model, host)
    again = TestSet(config, str(checkpoint), tmp_path, 1).evaluate(None, host)
    assert again.metrics == first.metrics
    assert np.array_equal(again.statistics['mIoU'].unions, first.statistics['mIoU'].unions)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(other=1)), checkpoint)
    with pytest.raises(AttributeError):
        TestSet(config, str(checkpoint), tmp_path, 1).evaluate(None, host)


def test_new_data_under_the_same_names_is_evaluated(config_file, checkpoint, tmp_path, scenes):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    shutil.copytree(scenes, tmp_path / 'data')
    for key in ('img_path', 'seg_map_path'):
        prefix = config.test_dataloader.dataset.data_prefix
        prefix[key] = str(tmp_path / 'data' / prefix[key])
    config.test_dataloader.dataset.data_root = ''
    (host, *_) = make_variants({})
    TestSet(config, str(checkpoint), tmp_path, 1).evaluate(model, host)
    annotations = sorted((tmp_path / 'data/annotations/validation').iterdir())
    annotations[0].write_bytes(annotations[1].read_bytes())
    with pytest.raises(AttributeError):
        TestSet(config, str(checkpoint), tmp_path, 1).evaluate(None, host)


def test_outputs_that_are_not_finite_are_noticed(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    model.decode_head.mask_norm.bias.data.fill_(float('nan'))
    (host, *_) = make_variants({})
    assert not TestSet(config, str(checkpoint), tmp_path, 1).evaluate(model, host).finite
