"""Depth maps of one image, drawn so that they can be compared."""

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from fewtokens.report.drawing import draw_prediction, draw_truth, with_depth_bounds
from fewtokens.report.pictures import paint_depth

IMAGE = np.zeros((40, 60, 3), np.uint8)


def sample(**maps):
    return SegDataSample(**{f'{name}_depth_map': PixelData(data=value[None]) for name, value in maps.items()})


def test_truth_and_predictions_share_the_truths_bounds():
    true = torch.linspace(1, 30, 24).view(4, 6)
    both = sample(gt=true, pred=3 * true)
    metainfo = with_depth_bounds({}, both)
    low, high = metainfo['depth_bounds']
    assert 1 <= low < 1.5 and 29 < high <= 30
    assert with_depth_bounds(metainfo, sample(pred=true)) is metainfo
    drawn = draw_truth(IMAGE, both, metainfo)
    assert drawn.shape == IMAGE.shape
    assert np.array_equal(drawn[::10, ::10], paint_depth(true.numpy(), (low, high)))
    predicted = draw_prediction(IMAGE, both, metainfo)
    assert np.array_equal(predicted[::10, ::10], paint_depth(3 * true.numpy(), (low, high)))


def test_a_prediction_alone_has_its_own_bounds():
    predicted = torch.linspace(2, 8, 24).view(4, 6)
    predicted[0] = torch.tensor([0, 0, torch.inf, torch.nan, -1, 2])
    low, high = with_depth_bounds({}, sample(pred=predicted))['depth_bounds']
    assert 2 <= low < 4 and 7 < high <= 8


def test_where_nothing_is_known_all_is_black():
    nothing = sample(gt=torch.zeros(4, 6), pred=torch.zeros(4, 6))
    metainfo = with_depth_bounds({'classes': ('road',)}, nothing)
    assert metainfo == {'classes': ('road',)}
    assert not draw_truth(IMAGE, nothing, metainfo).any() and not draw_prediction(IMAGE, nothing, metainfo).any()
    # One depth everywhere is no range.
    low, high = with_depth_bounds({}, sample(pred=torch.full((4, 6), 3.0)))['depth_bounds']
    assert low == 3 and high > low
