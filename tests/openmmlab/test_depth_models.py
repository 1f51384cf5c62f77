"""Models of depth for OpenMMLab's tools: transformers' own call, what is put back where, and how they are trained."""

import pytest
import torch
from depth import TINY
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import fewtokens
import fewtokens.openmmlab.depth_models  # noqa: F401
from fewtokens.levels import Level
from fewtokens.measure.macs import count_macs
from fewtokens.openmmlab.depth_models import estimate

VIT = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=64)
STAGES = dict(out_features=['stage1', 'stage2', 'stage3', 'stage4'], reshape_hidden_states=False)
DINOV2 = dict(model_type='dinov2', patch_size=8, **VIT, **STAGES)
BEIT = dict(model_type='beit', patch_size=8, intermediate_size=64, use_relative_position_bias=True, **VIT, **STAGES)
STEM = dict(
    model_type='bit', embedding_size=8, hidden_sizes=[32, 32, 32], depths=[1, 1, 1], num_groups=4,
    layer_type='bottleneck', global_padding='same', embedding_dynamic_padding=True,
    out_features=['stage1', 'stage2', 'stage3'],
)  # fmt: skip
NECK = dict(neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8)
NETWORKS = {
    'DPT': TINY,
    'DPT hybrid': TINY | dict(
        is_hybrid=True, backbone_config=STEM, backbone_featmap_shape=[1, 32, 4, 4], neck_hidden_sizes=[32, 32, 8, 8],
        reassemble_factors=[1, 1, 1, 0.5],
    ),
    'DPT on DINOv2': dict(model_type='dpt', backbone_config=DINOV2, **NECK),
    'DPT on BEiT': dict(model_type='dpt', backbone_config=BEIT, **NECK),
    'Depth Anything': dict(
        model_type='depth_anything', backbone_config=DINOV2, patch_size=8, reassemble_hidden_size=32,
        head_hidden_size=8, **NECK,
    ),
    'Depth Anything, metric': dict(
        model_type='depth_anything', backbone_config=DINOV2, patch_size=8, reassemble_hidden_size=32,
        head_hidden_size=8, depth_estimation_type='metric', max_depth=20, **NECK,
    ),
    'ZoeDepth': dict(
        model_type='zoedepth', backbone_config=BEIT, num_attractors=[4, 2, 2, 1], bin_embedding_dim=8,
        bottleneck_features=8, num_relative_features=8,
        bin_configurations=[dict(n_bins=8, min_depth=0.001, max_depth=10.0, name='nyu')], **NECK,
    ),
}  # fmt: skip
SQUARE, WIDE = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 128)


def estimator(network, kind='TransformersDepthEstimator', **options):
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        return MODELS.build(dict(type=kind, network=network, **options)).eval()


@pytest.fixture(params=NETWORKS)
def model(request):
    return estimator(NETWORKS[request.param])


@torch.no_grad()
def test_any_size_and_on_squares_transformers_own_output(model):
    own = model.network(pixel_values=SQUARE).predicted_depth
    torch.testing.assert_close(estimate(model.network, SQUARE), own)
    assert model(SQUARE, mode='tensor').shape == (2, 1, 64, 64)
    depth = model(WIDE, mode='tensor')
    assert depth.shape == (2, 1, 64, 128) and depth.isfinite().all()
    features = model.extract_feat(WIDE)
    assert len(features) == 4 and all(len(each) == 2 for each in features)


@torch.no_grad()
@pytest.mark.parametrize('reducer', [fewtokens.Hourglass(1, (3, 4), k=1), fewtokens.SharedUpdate(1, (3, 4))], ids=str)
def test_a_reducer_costs_less_and_restores_what_the_neck_takes(model, reducer, monkeypatch):
    calls, restore = [], Level.restore
    monkeypatch.setattr(Level, 'restore', lambda level, tokens: calls.append(1) or restore(level, tokens))
    whole, macs = model(WIDE, mode='tensor'), count_macs(model, WIDE)
    with fewtokens.attach(model, reducer) as attachment:
        depth = model(WIDE, mode='tensor')
        assert attachment.passes == 1 and depth.shape == whole.shape and depth.isfinite().all()
        # Four of the blocks' outputs at most, and that of a last norm.
        assert len(calls) <= 5
        assert count_macs(model, WIDE) < macs
    assert torch.equal(model(WIDE, mode='tensor'), whole)


@torch.no_grad()
def test_scale_shift_and_inversion():
    given = estimator(TINY)(SQUARE, mode='tensor')
    scaled = estimator(TINY, scale=2.0, shift=0.5)(SQUARE, mode='tensor')
    torch.testing.assert_close(scaled, 2 * given + 0.5)
    inverted = estimator(TINY, scale=2.0, shift=0.5, invert=True)(SQUARE, mode='tensor')
    torch.testing.assert_close(inverted, 1 / (2 * given + 0.5))
    # What would be infinitely far, or behind the camera.
    assert estimator(TINY, scale=0.0, shift=-1.0, invert=True)(SQUARE, mode='tensor').max() == pytest.approx(1e8)


def sample(**meta):
    return SegDataSample(metainfo=dict(ori_shape=(6, 8), img_shape=(6, 8), **meta))


@pytest.mark.parametrize('kind', ['TransformersDepthEstimator', 'FramedDepthEstimator'])
def test_predictions_are_put_where_their_pixels_were(kind):
    cls = MODELS.get(f'mmseg.{kind}')
    depth = torch.arange(1.0, 49).view(1, 1, 6, 8)

    def placed(depth, **meta):
        (found,) = cls.postprocess_result(None, depth, [sample(**meta)])
        return found.pred_depth_map.data

    assert torch.equal(placed(depth), depth[0])
    padded = torch.nn.functional.pad(depth, (0, 3, 0, 2))
    assert torch.equal(placed(padded, padding_size=(0, 3, 0, 2)), depth[0])
    assert torch.equal(placed(depth.flip(3), flip=True, flip_direction='horizontal'), depth[0])
    cropped = placed(depth[:, :, :4, :5], crop=(2, 1, 4, 5))
    assert cropped.shape == (1, 6, 8) and torch.equal(cropped[0, 2:, 1:6], depth[0, 0, :4, :5])
    assert not cropped[0, :2].any() and not cropped[0, :, :1].any() and not cropped[0, :, 6:].any()
    # Other sizes are resized to the crop's or the whole picture's.
    assert torch.equal(placed(torch.full((1, 1, 3, 4), 7.0)), torch.full((1, 6, 8), 7.0))
    assert placed(torch.full((1, 1, 2, 2), 7.0), crop=(2, 1, 4, 5)).sum() == 7 * 20


def test_training_lowers_the_loss():
    model = estimator(TINY, shift=1.0).train()
    true = torch.linspace(1, 4, 64).expand(64, 64).clone()
    true[:9] = 0
    samples = [sample() for _ in SQUARE]
    for each in samples:
        each.gt_depth_map = PixelData(data=true[None])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        (loss,) = model(SQUARE, samples, mode='loss').values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_light_head_keeps_to_its_bounds():
    head = dict(
        type='DepthHead', min_depth=0.5, max_depth=32.0, in_channels=8, channels=8, num_convs=0, kernel_size=1,
        concat_input=False, norm_cfg=dict(type='BN'), in_index=-1, align_corners=False,
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(head).eval()
    features = torch.randn(2, 8, 4, 6)
    torch.nn.init.zeros_(head.conv_seg.weight)
    for bias, expected in ((0, 4), (99, 32), (-99, 0.5)):
        torch.nn.init.constant_(head.conv_seg.bias, bias)
        torch.testing.assert_close(head([features]), torch.full((2, 1, 4, 6), float(expected)))
    samples = [SegDataSample(gt_depth_map=PixelData(data=torch.ones(1, 16, 24))) for _ in features]
    (loss,) = head.loss_by_feat(torch.full((2, 1, 4, 6), 2.0), samples).values()
    # Of a factor that is the same everywhere, half is forgiven.
    assert loss.item() == pytest.approx(torch.tensor(2.0).log().item() * 0.5**0.5, rel=1e-4)


@pytest.mark.parametrize(
    'network, message',
    [
        (dict(image_size=64), "must name a model_type, such as 'dpt'"),
        (dict(model_type='nonsense'), 'nonsense'),
        (dict(model_type='vit'), 'ViTConfig'),
    ],
)
def test_networks_that_are_none_are_named(network, message):
    with pytest.raises(ValueError, match=message):
        estimator(network)


def test_a_folder_says_what_to_build(tmp_path):
    estimator(NETWORKS['Depth Anything']).network.config.save_pretrained(tmp_path)
    assert estimator(str(tmp_path)).network.config.model_type == 'depth_anything'
