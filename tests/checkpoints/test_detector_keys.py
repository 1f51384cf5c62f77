"""Checkpoints of detrex, Mask2Former and Swin: written here in their own layouts, by the way back from mmdet's."""

import ast
import pickle
import re
from pathlib import Path

import mmdet
import numpy as np
import pytest
import timm
import torch
from maskdino_literal import PublishedHead
from torch import nn
from torch.nn import functional as F

import fewtokens.openmmlab  # noqa: F401
from fewtokens.checkpoints.keys import convert_keys
from fewtokens.cli.convert_checkpoint import main as convert
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model, load_weights

ROOT = Path(__file__).parents[2]
TIMM_SWIN = dict(img_size=128, embed_dim=8, depths=(2, 2, 2, 1), num_heads=(1, 2, 2, 4), window_size=4)
DINO = ROOT / 'configs/_base_/dino-5scale_swin-l_detrex.py'
PANOPTIC = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'
ADE20K_PANOPTIC = ROOT / 'configs/_base_/mask2former_swin-l_ade20k-panoptic.py'
VIDEO = 'mmdet::mask2former_vis/mask2former_swin-l-p4-w12-384-in21k_8xb2-8e_youtubevis2021.py'
SEMANTIC = 'mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py'

SWIN_NAMES = (
    ('patch_embed.projection.', 'patch_embed.proj.'), ('.ffn.layers.0.0.', '.mlp.fc1.'),
    ('.ffn.layers.1.', '.mlp.fc2.'), ('.attn.w_msa.', '.attn.'), ('stages.', 'layers.'),
)  # fmt: skip
DETREX_NAMES = (
    ('.gn.', '.norm.'), ('level_embed', 'transformer.level_embeds'), ('query_embedding.', 'transformer.tgt_embed.'),
    ('memory_trans_fc.', 'transformer.enc_output.'), ('memory_trans_norm.', 'transformer.enc_output_norm.'),
    ('encoder.', 'transformer.encoder.'), ('decoder.', 'transformer.decoder.'), ('.ffn.', '.ffns.0.'),
    ('dn_query_generator.label_embedding.', 'label_enc.'), ('bbox_head.cls_branches.', 'class_embed.'),
    ('.self_attn.', '.attentions.0.'), ('.cross_attn.', '.attentions.1.'), ('bbox_head.reg_branches.', 'bbox_embed.'),
)  # fmt: skip
PIXEL_NAMES = (
    ('level_encoding.weight', 'transformer.level_embed'), ('encoder.layers', 'transformer.encoder.layers'),
    ('norms.0.', 'norm1.'), ('norms.1.', 'norm2.'), ('ffn.layers.0.0.', 'linear1.'), ('ffn.layers.1.', 'linear2.'),
    ('lateral_convs.0.gn.', 'adapter_1.norm.'), ('lateral_convs.0.conv.', 'adapter_1.'),
    ('output_convs.0.gn.', 'layer_1.norm.'), ('output_convs.0.conv.', 'layer_1.'),
    ('input_convs.', 'input_proj.'), ('.conv.', '.0.'), ('.gn.', '.1.'), ('mask_feature.', 'mask_features.'),
)  # fmt: skip
LAYER_NAMES = {
    'cross_attn.attn': 'transformer_cross_attention_layers.{}.multihead_attn',
    'norms.0': 'transformer_cross_attention_layers.{}.norm',
    'self_attn.attn': 'transformer_self_attention_layers.{}.self_attn',
    'norms.1': 'transformer_self_attention_layers.{}.norm',
    'ffn.layers.0.0': 'transformer_ffn_layers.{}.linear1',
    'ffn.layers.1': 'transformer_ffn_layers.{}.linear2',
    'norms.2': 'transformer_ffn_layers.{}.norm',
}


def replaced(name, pairs):
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


def unmerged(weight):
    """Patch merging in the order of the original: columns of patches, then rows, then channels."""
    channels = weight.shape[-1] // 4
    original = torch.empty_like(weight)
    for channel in range(channels):
        for row in range(2):
            for column in range(2):
                place = (2 * column + row) * channels + channel
                original[..., place] = weight[..., 4 * channel + 2 * row + column]
    return original


def swin_of(name, value):
    return replaced(name, SWIN_NAMES), unmerged(value) if '.downsample.' in name else value


def detrex_of(name):
    if part := re.fullmatch(r'bbox_head\.reg_branches\.(\d)\.(\d)\.(\w+)', name):
        return f'bbox_embed.{part[1]}.layers.{int(part[2]) // 2}.{part[3]}'
    return replaced(name, DETREX_NAMES)


def mask2former_of(name):
    name = name.partition('.')[2]  # without panoptic_head or decode_head
    if name.startswith('pixel_decoder.'):
        return 'sem_seg_head.' + replaced(name, PIXEL_NAMES)
    if part := re.fullmatch(r'transformer_decoder\.layers\.(\d)\.(.*?)(\.\w+|\.out_proj\.\w+)', name):
        return f'sem_seg_head.predictor.{LAYER_NAMES[part[2]].format(part[1])}{part[3]}'
    if part := re.fullmatch(r'mask_embed\.(\d)\.(\w+)', name):
        return f'sem_seg_head.predictor.mask_embed.layers.{int(part[1]) // 2}.{part[2]}'
    pairs = (('transformer_decoder.post_norm.', 'decoder_norm.'), ('cls_embed.', 'class_embed.'))
    return 'sem_seg_head.predictor.' + replaced(name, pairs)


def published(model, head_of):
    """A model's weights in a foreign layout. Nothing is left out."""
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith('backbone.'):
            name, value = swin_of(name, value)
        else:
            name = head_of(name)
        assert name not in weights
        weights[name] = value
    return weights


def build(config):
    """The published shape: one block a stage, two layers elsewhere, few channels in the backbone."""
    config = load_config(config)
    config.model.backbone |= dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=4)
    if 'bbox_head' in config.model:
        config.model.neck.in_channels = [8, 16, 32, 64]
        config.model.encoder.num_layers = config.model.decoder.num_layers = 2
    else:
        head = next(
            config.model[name] for name in ('panoptic_head', 'track_head', 'decode_head') if name in config.model
        )
        head.in_channels = [8, 16, 32, 64]
        head.transformer_decoder.num_layers = head.pixel_decoder.encoder.num_layers = 2
        head.num_transformer_feat_level = 3
    torch.manual_seed(0)
    model = build_model(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def assert_same_weights(model, converted):
    expected = model.state_dict()
    assert converted.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(converted[name], value), name
    model.load_state_dict(converted)


def test_detrex():
    model = build(DINO)
    weights = published(model, detrex_of)
    heads = {name: value for name, value in weights.items() if name.startswith(('class_embed.', 'bbox_embed.'))}
    decoder = {f'transformer.decoder.{name}': value for name, value in heads.items()}
    assert 'transformer.decoder.class_embed.2.weight' in decoder  # two layers, and the proposals of the encoder
    assert weights['neck.extra_convs.0.conv.bias'].shape == (256,)
    weights |= {**decoder, 'criterion.empty_weight': torch.ones(81)}
    assert_same_weights(model, convert_keys(weights))

    query, box = torch.randn(3, 256), [(f'bbox_embed.1.layers.{i}', i < 2) for i in range(3)]
    expected = query
    for layer, activated in box:
        expected = F.linear(expected, weights[f'{layer}.weight'], weights[f'{layer}.bias'])
        expected = expected.relu() if activated else expected
    torch.testing.assert_close(model.bbox_head.reg_branches[1](query), expected)

    # The authors make half as many waves of a box as mmdet does today.
    from mmdet.models.layers import coordinate_to_encoding

    boxes, name = torch.rand(1, 5, 4), 'transformer.decoder.ref_point_head.layers.0.weight'
    weights[name] = torch.randn(256, 512)
    model.load_state_dict(convert_keys(weights))
    expected = coordinate_to_encoding(boxes, num_feats=128) @ weights[name].T
    found = coordinate_to_encoding(boxes, num_feats=256) @ model.decoder.ref_point_head.layers[0].weight.T
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'config, layout', [(PANOPTIC, 'auto'), (SEMANTIC, 'mask2former-mmseg'), (VIDEO, 'mask2former-vis')]
)
def test_mask2former(config, layout):
    model = build(config)
    weights = published(model, mask2former_of)
    dropped = dict.fromkeys(('pixel_mean', 'pixel_std', 'criterion.empty_weight'), torch.ones(3))
    converted = convert_keys(weights | dropped, layout)
    assert_same_weights(model, converted)
    older = {name.replace('.query_feat.', '.static_query.'): value for name, value in weights.items()}
    assert older.keys() != weights.keys() and convert_keys(older, layout).keys() == converted.keys()


@pytest.mark.parametrize('task, classes', [('instance', 80), ('panoptic', 133)])
def test_maskdino(task, classes):
    """At the published sizes: 223 million parameters, and all that a published file has a second time."""
    model = build_model(load_config(ROOT / f'configs/_base_/maskdino_swin-l_coco-{task}.py'), device='meta')
    with torch.device('meta'):
        head = PublishedHead([192, 384, 768, 1536], classes).state_dict()
    weights = {f'sem_seg_head.{name}': value for name, value in head.items()}
    weights |= {
        replaced(name, SWIN_NAMES): value for name, value in model.state_dict().items() if name.startswith('backbone.')
    }
    assert {f'sem_seg_head.predictor.decoder.bbox_embed.{i}.layers.2.bias' for i in range(9)} <= weights.keys()
    model.load_state_dict(convert_keys({**weights, 'criterion.empty_weight': torch.ones(classes + 1)}))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == 223
    assert model.panoptic_head.boxes_from_masks == (task == 'instance')


def attended(weights, name, query, image):
    """Attention and what follows, as the authors order it: added, then normalised."""
    attention = nn.MultiheadAttention(256, 8)
    attention.load_state_dict(
        {key.removeprefix(f'{name}.'): value for key, value in weights.items() if key.startswith(f'{name}.')}
    )
    norm = name.rpartition('.')[0] + '.norm'
    return normed(weights, norm, query + attention(query, image, image)[0])


def normed(weights, name, x):
    return F.layer_norm(x, (256,), weights[f'{name}.weight'], weights[f'{name}.bias'])


@torch.no_grad()
def test_a_layer_of_mask2former_attends_to_the_image_first():
    model = build(PANOPTIC)
    weights = {
        name.removeprefix('sem_seg_head.predictor.transformer_'): value
        for name, value in published(model, mask2former_of).items()
    }
    query, image = torch.randn(7, 1, 256), torch.randn(20, 1, 256)
    layer = model.panoptic_head.transformer_decoder.layers[1]
    output = layer(*(x.transpose(0, 1) for x in (query, image, image)))
    query = attended(weights, 'cross_attention_layers.1.multihead_attn', query, image)
    query = attended(weights, 'self_attention_layers.1.self_attn', query, query)
    inner, outer = ([weights[f'ffn_layers.1.linear{i}.{kind}'] for kind in ('weight', 'bias')] for i in (1, 2))
    query = normed(weights, 'ffn_layers.1.norm', query + F.linear(F.linear(query, *inner).relu(), *outer))
    torch.testing.assert_close(output.transpose(0, 1), query, atol=1e-4, rtol=1e-4)


def test_panoptic_classes_of_ade20k_are_the_things_first():
    from mmdet.datasets import ADE20KPanopticDataset

    tool = Path(mmdet.__file__).parent / '.mim/tools/dataset_converters/ade20k2coco.py'
    (original,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(tool.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'ORIGINAL_CATEGORIES'
    )
    model = build(ADE20K_PANOPTIC)
    weights = published(model, mask2former_of)
    weights['sem_seg_head.predictor.class_embed.bias'] = torch.arange(151.0)
    order = convert_keys(weights)['panoptic_head.cls_embed.bias'].int().tolist()
    assert [original[i] for i in order[:-1]] == list(ADE20KPanopticDataset.METAINFO['classes']) and order[-1] == 150
    assert convert_keys(weights, 'mask2former-mmseg')['decode_head.cls_embed.bias'].equal(torch.arange(151.0))


@pytest.fixture(scope='module')
def timm_swin():
    torch.manual_seed(0)
    model = timm.create_model('swin_tiny_patch4_window7_224', num_classes=7, **TIMM_SWIN).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def build_backbone(package):
    names = {'embed_dim': 'embed_dims', 'img_size': 'pretrain_img_size'}
    settings = {names.get(name, name): value for name, value in TIMM_SWIN.items()}
    backbone = package.SwinTransformer(**settings)
    backbone.eval()
    return backbone


@pytest.mark.parametrize('layout', ['timm', 'original'])
@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
@torch.no_grad()
def test_swin_gives_the_same_features(timm_swin, layout, package):
    import mmdet.models
    import mmseg.models

    weights = timm_swin.state_dict()
    if layout == 'original':  # a stage ends with its merging there, and buffers are stored
        weights = {
            re.sub(r'layers\.(\d)\.downsample', lambda part: f'layers.{int(part[1]) - 1}.downsample', name): value
            for name, value in weights.items()
        }
        weights |= {'layers.0.blocks.1.attn_mask': torch.zeros(64, 16, 16)}
        weights |= {'layers.0.blocks.1.attn.relative_position_index': torch.zeros(16, 16)}
    converted = convert_keys(weights)
    backbone = build_backbone({'mmdet': mmdet, 'mmseg': mmseg}[package].models.backbones)
    missing, unknown = backbone.load_state_dict(
        {name.removeprefix('backbone.'): value for name, value in converted.items()}, strict=False
    )
    outputs = [f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')]
    assert sorted(missing) == sorted(outputs) and not unknown  # norms of the outputs, which no classifier has
    image = torch.randn(2, 3, 128, 128)
    stages = timm_swin.forward_intermediates(image, intermediates_only=True, norm=False)
    for stage, features in zip(stages, backbone(image), strict=True):
        expected = F.layer_norm(stage.permute(0, 2, 3, 1), stage.shape[1:2]).permute(0, 3, 1, 2)
        torch.testing.assert_close(features, expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_patch_merging_of_the_original():
    merging = build_backbone(mmdet_backbones()).stages[0].downsample
    nn.init.normal_(merging.norm.weight)
    nn.init.normal_(merging.norm.bias)
    ours = {f'stages.0.downsample.{name}': value for name, value in merging.state_dict().items()}
    theirs = dict(swin_of(name, value) for name, value in ours.items())
    converted = convert_keys(theirs)
    assert all(torch.equal(converted[f'backbone.{name}'], value) for name, value in ours.items())

    x = torch.randn(1, 6, 10, 8)
    merged = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
    norm = (theirs[f'layers.0.downsample.norm.{kind}'] for kind in ('weight', 'bias'))
    expected = F.layer_norm(merged, (32,), *norm) @ theirs['layers.0.downsample.reduction.weight'].T
    output, size = merging(x.flatten(1, 2), (6, 10))
    assert size == (3, 5)
    torch.testing.assert_close(output, expected.flatten(1, 2), atol=1e-5, rtol=1e-5)


def mmdet_backbones():
    from mmdet.models import backbones

    return backbones


def test_mmdets_own_converter_agrees(timm_swin):
    from mmdet.models.backbones.swin import swin_converter

    names = [name for name in build_backbone(mmdet_backbones()).state_dict() if 'index' not in name]
    weights = dict(swin_of(name, torch.randn(32, 64) if 'reduction' in name else torch.randn(64)) for name in names)
    expected, converted = swin_converter(weights), convert_keys(weights)
    assert expected.keys() == {name for name in converted if 'index' not in name}
    assert all(torch.equal(converted[name], value) for name, value in expected.items())


@pytest.mark.parametrize('numpy_1', [False, True])
def test_a_pickle_of_arrays_becomes_a_checkpoint(numpy_1, tmp_path):
    model = build(PANOPTIC)
    arrays = {name: value.detach().numpy() for name, value in published(model, mask2former_of).items()}
    content = pickle.dumps({'model': arrays, '__author__': 'third_party'}, protocol=2)
    if numpy_1:
        content = content.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    (tmp_path / 'in.pkl').write_bytes(content)
    convert([str(tmp_path / 'in.pkl'), str(tmp_path / 'out.pth')])
    expected = model.state_dict()
    load_weights(model, tmp_path / 'out.pth')
    assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())


class Executed:
    def __reduce__(self):
        return print, ('executed',)


@pytest.mark.parametrize(
    'content, reason',
    [
        (None, 'there is no checkpoint'),
        (b'', 'it is empty'),
        (pickle.dumps({'model': {'a': np.zeros(1000)}})[:500], 'truncated|exhausted|Ran out'),
        (pickle.dumps({'model': {'a': Executed()}}), 'builtins.print, which is no array'),
        (pickle.dumps({'model': {'a': np.array([None])}}), 'object'),
        (pickle.dumps([1, 2]), 'list'),
    ],
)
def test_other_pickles_are_refused(content, reason, tmp_path, capsys):
    source, target = tmp_path / 'in.pkl', tmp_path / 'out.pth'
    if content is not None:
        source.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=reason) as error:
        convert([str(source), str(target)])
    assert str(source) in str(error.value) and not target.exists()
    assert 'executed' not in capsys.readouterr().out


def test_keys_without_a_place_are_named():
    weights = {'layers.0.downsample.reduction.weight': torch.zeros(16, 32), 'layers.0.blocks.0.attn.tau': torch.ones(1)}
    with pytest.raises(ValueError, match=r"1 of 2 keys .*layout 'swin'.*layers.0.blocks.0.attn.tau"):
        convert_keys(weights)
