import numpy as np
import pytest

from fewtokens.measure.accuracy import Accuracy, bootstrap_difference
from fewtokens.measure.resampling import Areas


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


def test_no_interval_without_statistics_or_of_one_image():
    assert bootstrap_difference(Accuracy({}), accuracy([[1], [1]], [[2], [2]]), 'mIoU') is None
    assert bootstrap_difference(accuracy([[1]], [[2]]), accuracy([[2]], [[2]]), 'mIoU') is None
