"""Depth errors against their formulas, pixel by pixel, and the protocols that the literature measures them by."""

import math

import cv2
import numpy as np
import pytest
import torch

from fewtokens.measure.accuracy import Accuracy, bootstrap_difference
from fewtokens.openmmlab.depth_metric import MEASURES, MonocularDepthMetric, crop_of


def plain(predicted, true, low, high, rows, columns):
    """Eigen's measures in plain Python."""
    pairs = []
    for r in range(*rows):
        for c in range(*columns):
            p, t = float(predicted[r, c]), float(true[r, c])
            if low < t < high:
                p = low if math.isnan(p) else min(max(p, low), high)
                pairs.append((p, t))
    n = len(pairs)
    logs = [math.log(p) - math.log(t) for p, t in pairs]
    found = {f'delta{i}': 100 * sum(max(p / t, t / p) < 1.25**i for p, t in pairs) / n for i in (1, 2, 3)}
    found['AbsRel'] = sum(abs(p - t) / t for p, t in pairs) / n
    found['SqRel'] = sum((p - t) ** 2 / t for p, t in pairs) / n
    found['RMSE'] = math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n)
    found['RMSE log'] = math.sqrt(sum(each**2 for each in logs) / n)
    found['log10'] = sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n
    found['silog'] = 100 * math.sqrt(sum(each**2 for each in logs) / n - (sum(logs) / n) ** 2)
    return found


def maps(size=(20, 30), seed=0):
    random = np.random.default_rng(seed)
    true = np.exp(random.uniform(np.log(0.5), np.log(100), size)).astype(np.float32)
    predicted = (true * np.exp(random.normal(0, 0.4, size))).astype(np.float32)
    true[random.random(size) < 0.3] = 0
    predicted[3, 4:9] = [np.nan, np.inf, -np.inf, -5, 0]
    return predicted, true


def samples(*pairs, **meta):
    return [
        dict(
            pred_depth_map=dict(data=torch.from_numpy(p)[None]),
            gt_depth_map=dict(data=torch.from_numpy(t)[None]),
            img_path=f'{number}.png',
            **meta,
        )
        for number, (p, t) in enumerate(pairs)
    ]


def evaluate(metric, given):
    metric.process({}, given)
    return metric.evaluate(len(given))


@pytest.mark.parametrize(
    'crop, rows, columns',
    [
        (None, (0, 20), (0, 30)),
        # Shares of 20 rows and 30 columns, cut down to whole ones.
        ('garg', (8, 19), (1, 28)),
        ('kitti-eigen', (6, 18), (1, 28)),
    ],
)
def test_each_image_by_the_formulas_then_their_average(crop, rows, columns):
    pairs = [maps(seed=seed) for seed in range(3)]
    metric = MonocularDepthMetric(1e-3, 80.0, crop)
    found = evaluate(metric, samples(*pairs))
    expected = [plain(*pair, 1e-3, 80.0, rows, columns) for pair in pairs]
    assert tuple(found) == MEASURES
    for name in MEASURES:
        assert found[name] == pytest.approx(np.mean([each[name] for each in expected]), rel=1e-5), name
    # Images with many pixels count no more than others.
    assert metric.statistics['RMSE'].values == pytest.approx([each['RMSE'] for each in expected], rel=1e-5)


def test_the_published_crops():
    # Of a frame of 375 x 1242 pixels; of NYUv2's pictures.
    assert crop_of('garg', (375, 1242)) == (slice(153, 371), slice(44, 1197))
    assert crop_of('kitti-eigen', (375, 1242)) == (slice(124, 342), slice(44, 1197))
    assert crop_of('nyu-eigen', (480, 640)) == (slice(45, 471), slice(41, 601))
    with pytest.raises(ValueError, match="crop='nyu-eigen' is of maps of 640 x 480 pixels: there is one of 320 x 240"):
        crop_of('nyu-eigen', (240, 320))


def test_only_what_is_inside_the_crop_counts():
    true = np.full((480, 640), 5, np.float32)
    predicted = np.full((480, 640), 1, np.float32)
    predicted[45:471, 41:601] = 5
    found = evaluate(MonocularDepthMetric(max_depth=10, crop='nyu-eigen'), samples((predicted, true)))
    assert (found['delta1'], found['RMSE'], found['silog']) == (100, 0, 0)


def test_predictions_are_clamped_and_far_truth_is_left_out():
    true, predicted = np.array([[8, 12, 10, 0.0]], np.float32), np.array([[15, 12, 10, 7]], np.float32)
    found = evaluate(MonocularDepthMetric(max_depth=10), samples((predicted, true)))
    assert found['RMSE'] == pytest.approx(2) and found['AbsRel'] == pytest.approx(0.25)


def test_alignment():
    _, true = maps()
    median = evaluate(MonocularDepthMetric(align='median'), samples((7 * true, true)))
    assert (median['delta1'], median['RMSE']) == pytest.approx((100, 0), abs=1e-4)
    inverse = (3 / np.where(true > 0, true, 1) - 0.2).astype(np.float32)
    found = evaluate(MonocularDepthMetric(align='inverse'), samples((inverse, true)))
    assert (found['delta1'], found['AbsRel']) == pytest.approx((100, 0), abs=1e-4)
    assert evaluate(MonocularDepthMetric(), samples((inverse, true)))['delta1'] < 50


def test_intervals_come_from_images():
    metric = MonocularDepthMetric()
    accuracies = []
    for noise in (1.0, 1.3):
        pairs = [maps(seed=seed) for seed in range(5)]
        metrics = evaluate(metric, samples(*((noise * p, t) for p, t in pairs)))
        accuracies.append(Accuracy(metrics, metric.statistics))
    low, high = bootstrap_difference(*accuracies, 'delta1')
    assert 0 < low < accuracies[0].metrics['delta1'] - accuracies[1].metrics['delta1'] < high
    assert bootstrap_difference(*accuracies, 'RMSE') is not None


def test_written_predictions(tmp_path):
    predicted, true = maps()
    metric = MonocularDepthMetric(output_dir=str(tmp_path / 'out'), png_scale=256)
    evaluate(metric, samples((predicted, true), name='drive_1/image_02/data/5.jpg'))
    stored = cv2.imread(str(tmp_path / 'out/drive_1_image_02_data_5.png'), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and stored[3, 4] == 0 and stored[3, 5] == 65535
    usual = np.isfinite(predicted) & (predicted >= 0) & (predicted < 255)
    assert np.abs(stored / 256 - predicted)[usual].max() < 1 / 256


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(crop='eigen'), "crop='eigen' must be None or one of 'garg', 'kitti-eigen', 'nyu-eigen'"),
        (dict(align='scale'), "align='scale' must be None or one of 'median', 'inverse'"),
        (dict(min_depth=0), 'min_depth=0 must be more than 0'),
        (dict(max_depth=1e-4), 'max_depth=0.0001'),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MonocularDepthMetric(**options)


def test_what_cannot_be_measured_is_named():
    predicted, true = maps()
    with pytest.raises(ValueError, match="'0.png' has no true depth between 0.001 and 80.0 m"):
        MonocularDepthMetric().process({}, samples((predicted, 0 * true)))
    with pytest.raises(ValueError, match="'0.png' has 30 x 10, its depth map 30 x 20 pixels: .* after KBCrop"):
        MonocularDepthMetric().process({}, samples((predicted[:10], true)))
