"""A DPT in its authors' layout, decoded by their formula; timm has their backbone under the names that they saved."""

from functools import partial

import pytest
import timm
import torch
from mmengine.registry import MODELS, DefaultScope
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch.nn import functional as F

import fewtokens.openmmlab  # noqa: F401
import fewtokens.openmmlab.depth_models  # noqa: F401
from fewtokens.checkpoints.depth_keys import convert_depth_keys
from fewtokens.checkpoints.keys import convert_keys, find_layout
from fewtokens.cli.convert_checkpoint import main as convert
from fewtokens.openmmlab.model import load_weights

WIDTH, DEPTH, FUSED = 32, 4, 16
SIZES = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=4, intermediate_size=64)
DPT = dict(
    model_type='dpt', image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=FUSED,
    layer_norm_eps=1e-6, **SIZES,
)  # fmt: skip
STEM = dict(
    model_type='bit', embedding_size=8, hidden_sizes=[32, 48, 64], depths=[2, 1, 1], layer_type='bottleneck',
    global_padding='same', embedding_dynamic_padding=True, num_groups=4, out_features=['stage1', 'stage2', 'stage3'],
)  # fmt: skip
CHANNELS = dict(hybrid=(32, 48, 24, 40), plain=(8, 16, 24, 40))
NETWORKS = dict(
    hybrid=dict(
        DPT, is_hybrid=True, backbone_config=STEM, backbone_featmap_shape=[1, 64, 4, 4],
        neck_hidden_sizes=CHANNELS['hybrid'], reassemble_factors=[1, 1, 1, 0.5],
    ),
    plain=dict(DPT, neck_hidden_sizes=CHANNELS['plain']),
)  # fmt: skip
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def backbone(kind):
    options = dict(img_size=64, patch_size=16, embed_dim=WIDTH, depth=DEPTH, num_heads=4, mlp_ratio=2, num_classes=5)
    if kind == 'hybrid':
        conv = partial(timm.layers.StdConv2dSame, eps=1e-6)
        stem = ResNetV2(
            layers=(2, 1, 1), channels=(32, 48, 64), stem_chs=8, num_classes=0, global_pool='', preact=False,
            stem_type='same', conv_layer=conv, norm_layer=partial(timm.layers.GroupNormAct, num_groups=4),
        )  # fmt: skip
        options |= dict(patch_size=1, embed_layer=partial(HybridEmbed, backbone=stem))
    return VisionTransformer(**options).eval()


def published(kind):
    """The backbone, and all weights, each random: ones and zeros would hide a mix-up."""
    model, channels = backbone(kind), CHANNELS[kind]
    shapes = {f'pretrained.model.{name}': value.shape for name, value in model.state_dict().items()}
    for level, width in enumerate(channels, 1):
        post = f'pretrained.act_postprocess{level}'
        if kind == 'plain' or level > 2:
            shapes |= {f'{post}.0.project.0.weight': (WIDTH, 2 * WIDTH), f'{post}.0.project.0.bias': (WIDTH,)}
            shapes |= {f'{post}.3.weight': (width, WIDTH, 1, 1), f'{post}.3.bias': (width,)}
        side = {('plain', 1): 4, ('plain', 2): 2, ('plain', 4): 3, ('hybrid', 4): 3}.get((kind, level))
        if side:
            shapes |= {f'{post}.4.weight': (width, width, side, side), f'{post}.4.bias': (width,)}
        shapes[f'scratch.layer{level}_rn.weight'] = (FUSED, width, 3, 3)
        for unit in (1, 2):
            for number in (1, 2):
                name = f'scratch.refinenet{level}.resConfUnit{unit}.conv{number}'
                shapes |= {f'{name}.weight': (FUSED, FUSED, 3, 3), f'{name}.bias': (FUSED,)}
        shapes |= {f'scratch.refinenet{level}.out_conv.weight': (FUSED, FUSED, 1, 1)}
        shapes |= {f'scratch.refinenet{level}.out_conv.bias': (FUSED,)}
    for number, (few, many, side) in {0: (8, FUSED, 3), 2: (32, 8, 3), 4: (1, 32, 1)}.items():
        shapes |= {f'scratch.output_conv.{number}.weight': (few, many, side, side)}
        shapes |= {f'scratch.output_conv.{number}.bias': (few,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in weights:
        if 'norm' in name and name.endswith('weight'):
            weights[name] += 1
    model.load_state_dict({name.removeprefix('pretrained.model.'): v for name, v in weights.items() if 'model' in name})
    return model, weights


def decode(kind, model, weights, images):
    """Inverse depth [B, H, W] by the authors' formula."""
    maps = []
    names = [f'blocks.{index}' for index in range(DEPTH)]
    if kind == 'hybrid':
        names[:2] = ['patch_embed.backbone.stages.0', 'patch_embed.backbone.stages.1']
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda module, args, output: maps.append(output))
    model.forward_features(images)

    def conv(x, name, **options):
        return F.conv2d(x, weights[f'{name}.weight'], weights.get(f'{name}.bias'), **options)

    def residual(x, name):
        return conv(conv(x.relu(), f'{name}.conv1', padding=1).relu(), f'{name}.conv2', padding=1) + x

    for level, x in enumerate(maps, 1):
        if x.ndim == 4:
            continue
        post = f'pretrained.act_postprocess{level}'
        both = torch.cat([x[:, 1:], x[:, :1].expand_as(x[:, 1:])], dim=-1)
        x = F.gelu(F.linear(both, weights[f'{post}.0.project.0.weight'], weights[f'{post}.0.project.0.bias']))
        x = conv(x.transpose(1, 2).unflatten(2, (4, 4)), f'{post}.3')
        if level == 4:
            x = conv(x, f'{post}.4', stride=2, padding=1)
        elif kind == 'plain' and level < 3:
            side = 8 // 2**level
            x = F.conv_transpose2d(x, weights[f'{post}.4.weight'], weights[f'{post}.4.bias'], stride=side)
        maps[level - 1] = x
    path = None
    for level in (4, 3, 2, 1):
        own = conv(maps[level - 1], f'scratch.layer{level}_rn', padding=1)
        name = f'scratch.refinenet{level}'
        path = own if path is None else path + residual(own, f'{name}.resConfUnit1')
        path = residual(path, f'{name}.resConfUnit2')
        path = conv(F.interpolate(path, scale_factor=2, mode='bilinear', align_corners=True), f'{name}.out_conv')
    x = conv(path, 'scratch.output_conv.0', padding=1)
    x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
    return conv(conv(x, 'scratch.output_conv.2', padding=1).relu(), 'scratch.output_conv.4').relu()[:, 0]


def estimator(kind, **options):
    setting = dict(type='TransformersDepthEstimator', network=NETWORKS[kind], **options)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(setting).eval()


@torch.no_grad()
@pytest.mark.parametrize('kind', NETWORKS)
def test_a_published_dpt_computes_the_same(kind, tmp_path):
    model, weights = published(kind)
    assert find_layout(weights) == 'dpt'
    torch.save(weights, tmp_path / 'dpt.pt')
    convert([str(tmp_path / 'dpt.pt'), str(tmp_path / 'converted.pth')])
    expected = decode(kind, model, weights, IMAGES)
    ours = estimator(kind, scale=0.01, shift=0.1, invert=True)
    load_weights(ours, tmp_path / 'converted.pth')
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours(IMAGES)[:, 0], 1 / (0.01 * expected + 0.1), rtol=1e-3, atol=1e-4)


def test_what_has_no_place_is_named():
    _, weights = published('hybrid')
    with pytest.raises(ValueError, match='1 of .* keys have no place .*: auxlayer.0.weight'):
        convert_depth_keys({**weights, 'auxlayer.0.weight': torch.zeros(1)}, 'dpt')


def test_transformers_own_files_and_folders(tmp_path, capsys):
    ours = estimator('plain')
    ours.network.save_pretrained(tmp_path / 'dpt')
    for source in ('dpt', 'dpt/model.safetensors'):
        convert([str(tmp_path / source), str(tmp_path / 'converted.pth')])
        assert 'tensors of a TransformersDepthEstimator' in capsys.readouterr().out
        other = estimator('plain')
        load_weights(other, tmp_path / 'converted.pth')
        assert all(torch.equal(v, other.state_dict()[name]) for name, v in ours.state_dict().items())
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match="empty', but a folder without transformers' config.json"):
        convert([str(tmp_path / 'empty'), str(tmp_path / 'other.pth')])
    assert convert_keys({'neck.fusion_stage.layers.0.projection.weight': torch.ones(1)}).keys() == {
        'network.neck.fusion_stage.layers.0.projection.weight'
    }
