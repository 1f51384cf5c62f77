"""Parts for training a light head on a pretrained backbone."""

import pytest
import torch
from mmengine.registry import init_default_scope

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.frozen_backbone import FrozenTIMMBackbone
from fewtokens.openmmlab.normed_fcn_head import NormedFCNHead


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def head(**options):
    settings = dict(in_channels=[8, 8], in_index=[0, 1], input_transform='resize_concat', channels=16, num_classes=3)
    settings |= dict(num_convs=0, concat_input=False, norm_cfg=dict(type='BN'), dropout_ratio=0, align_corners=False)
    return NormedFCNHead(**{**settings, **options})


@pytest.mark.parametrize('options', [{}, dict(num_convs=1, kernel_size=1, channels=4)], ids=['linear', 'conv'])
def test_small_and_large_features_count_the_same(options):
    early, late = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    trained = head(**options)
    expected = trained([early, late])
    assert expected.shape == (2, 3, 4, 4) and len(trained.convs if options else []) == bool(options)
    torch.testing.assert_close(trained([5 * early, 100 * late + 7]), expected, atol=1e-3, rtol=1e-3)
    assert (head(**options)([early, late]) != expected).any()


def test_a_frozen_backbone_is_never_trained():
    backbone = FrozenTIMMBackbone(model_name='test_vit', pretrained=False, out_indices=(1,), drop_path_rate=0.9)
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    images = torch.randn(1, 3, 160, 160)
    (first,), (second,) = backbone(images), backbone(images)
    assert torch.equal(first, second) and not first.requires_grad
