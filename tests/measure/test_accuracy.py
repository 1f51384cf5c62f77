import shutil

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from fewtokens.measure.accuracy import Accuracy, bootstrap_difference
from fewtokens.measure.resampling import Areas
from fewtokens.measure.variants import make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.predict import predict
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.openmmlab.test_set import TestSet


def accuracy(intersections, unions):
    return Accuracy({}, dict(mIoU=Areas(np.array(intersections, float), np.array(unions, float))))


def test_interval_of_equal_results_is_nothing():
    one = accuracy([[5, 0], [3, 2]], [[10, 0], [4, 4]])
    assert bootstrap_difference(one, one, 'mIoU') == (0, 0)


def test_interval_contains_a_difference_that_every_image_has():
    random = np.random.default_rng(0)
    unions = random.uniform(50, 100, (200, 4))
    share = random.uniform(0.5, 0.7, (200, 4))
    better, worse = accuracy(unions * (share + 0.05), unions), accuracy(unions * share, unions)
    low, high = bootstrap_difference(better, worse, 'mIoU')
    assert low == pytest.approx(5, abs=0.1) and high == pytest.approx(5, abs=0.1)
    up_and_down = np.tile([[0.1], [-0.1]], (100, 1))
    unions[:] = 100
    better, worse = accuracy(unions * (0.5 + up_and_down), unions), accuracy(unions * 0.5, unions)
    low, high = bootstrap_difference(better, worse, 'mIoU')
    # The mean of 200 differences of 10 points has a standard error of 0.71.
    assert low == pytest.approx(-1.4, abs=0.2) and high == pytest.approx(1.4, abs=0.2)


def test_no_interval_without_statistics():
    assert bootstrap_difference(Accuracy({}), accuracy([[1]], [[2]]), 'mIoU') is None


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


def test_images_of_several_sizes_go_through_one_by_one(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    images = list(TestSet(config, str(checkpoint), tmp_path, 1).first_images(3))
    images[1]['inputs'] = [images[1]['inputs'][0][:, :48]]
    images[1]['data_samples'][0].set_metainfo(dict(img_shape=(48, 64), ori_shape=(48, 64)))
    together = {key: [image[key][0] for image in images] for key in ('inputs', 'data_samples')}
    (host, *_) = make_variants({})
    with torch.no_grad():
        labels = [sample.pred_sem_seg.data for sample in predict(model, host, together)]
        alone = [predict(model, host, image)[0].pred_sem_seg.data for image in images]
    assert [tuple(found.shape) for found in labels] == [(1, 64, 64), (1, 48, 64), (1, 64, 64)]
    assert all(torch.equal(a, b) for a, b in zip(labels, alone))


def test_outputs_that_are_not_finite_are_noticed(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    model = build_model(config, checkpoint)
    model.decode_head.mask_norm.bias.data.fill_(float('nan'))
    (host, *_) = make_variants({})
    assert not TestSet(config, str(checkpoint), tmp_path, 1).evaluate(model, host).finite
