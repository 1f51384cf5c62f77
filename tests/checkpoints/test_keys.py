import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

import fewtokens.openmmlab  # noqa: F401
from fewtokens.checkpoints.keys import convert_keys
from fewtokens.cli.convert_checkpoint import main as convert

CLASSES = 5


@pytest.fixture(scope='module')
def vit():
    """timm's own ViT with every parameter random: its fresh norms and biases, ones and zeros, would hide a mix-up."""
    torch.manual_seed(0)
    model = timm.create_model('vit_tiny_patch16_224', depth=3, num_classes=7).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def build_backbone(size=224, **init):
    from mmseg.models.backbones import VisionTransformer

    norm = dict(type='LN', eps=1e-6)
    settings = dict(patch_size=16, embed_dims=192, num_layers=3, num_heads=3, final_norm=True)
    backbone = VisionTransformer(img_size=(size, size), interpolate_mode='bicubic', norm_cfg=norm, **settings, **init)
    backbone.eval()
    return backbone


@torch.no_grad()
def assert_same_features(vit, weights):
    backbone = build_backbone()
    backbone.load_state_dict(weights)
    image = torch.randn(2, 3, 224, 224)
    expected = vit.forward_features(image)[:, 1:]
    (features,) = backbone(image)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected, atol=1e-4, rtol=1e-4)


def google_arrays(vit):
    """The layout of Google's .npz files, written out from a timm model."""
    weights = {key: value.detach().numpy() for key, value in vit.state_dict().items()}
    heads = vit.blocks[0].attn.num_heads
    arrays = {
        'cls': weights['cls_token'],
        'embedding/kernel': weights['patch_embed.proj.weight'].transpose(2, 3, 1, 0),
        'embedding/bias': weights['patch_embed.proj.bias'],
        'Transformer/posembed_input/pos_embedding': weights['pos_embed'],
        'Transformer/encoder_norm/scale': weights['norm.weight'],
        'Transformer/encoder_norm/bias': weights['norm.bias'],
        'head/kernel': weights['head.weight'].T,
        'head/bias': weights['head.bias'],
    }
    for i in range(len(vit.blocks)):
        block, attention = (
            f'Transformer/encoderblock_{i}/',
            f'Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/',
        )
        for ours, theirs in (('norm1', 'LayerNorm_0'), ('norm2', 'LayerNorm_2')):
            arrays[f'{block}{theirs}/scale'] = weights[f'blocks.{i}.{ours}.weight']
            arrays[f'{block}{theirs}/bias'] = weights[f'blocks.{i}.{ours}.bias']
        for ours, theirs in (('fc1', 'Dense_0'), ('fc2', 'Dense_1')):
            arrays[f'{block}MlpBlock_3/{theirs}/kernel'] = weights[f'blocks.{i}.mlp.{ours}.weight'].T
            arrays[f'{block}MlpBlock_3/{theirs}/bias'] = weights[f'blocks.{i}.mlp.{ours}.bias']
        kernels = np.split(weights[f'blocks.{i}.attn.qkv.weight'], 3)
        biases = np.split(weights[f'blocks.{i}.attn.qkv.bias'], 3)
        for name, kernel, bias in zip(('query', 'key', 'value'), kernels, biases):
            arrays[f'{attention}{name}/kernel'] = kernel.T.reshape(len(kernel), heads, -1)
            arrays[f'{attention}{name}/bias'] = bias.reshape(heads, -1)
        out = weights[f'blocks.{i}.attn.proj.weight'].T
        arrays[f'{attention}out/kernel'] = out.reshape(heads, -1, len(out))
        arrays[f'{attention}out/bias'] = weights[f'blocks.{i}.attn.proj.bias']
    return arrays


def test_a_timm_model_gives_the_same_features(vit):
    assert_same_features(vit, convert_keys(vit.state_dict()))


def test_a_google_npz_gives_the_same_features(vit, tmp_path):
    arrays = google_arrays(vit)
    np.savez(tmp_path / 'vit.npz', **arrays)
    # timm's own reader of such files says whether the file is what it should be.
    read_by_timm = timm.create_model('vit_tiny_patch16_224', depth=3, num_classes=7).eval()
    read_by_timm.load_pretrained(str(tmp_path / 'vit.npz'))
    convert([str(tmp_path / 'vit.npz'), str(tmp_path / 'vit.pth')])
    assert_same_features(read_by_timm, torch.load(tmp_path / 'vit.pth', weights_only=True)['state_dict'])
    assert_same_features(vit, convert_keys({key: torch.tensor(value) for key, value in arrays.items()}))


def build_segmenter(head):
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    norm = dict(type='LN', eps=1e-6)
    heads = {
        'mask': dict(type='SegmenterMaskTransformerHead', embed_dims=192, num_layers=2, num_heads=3, norm_cfg=norm),
        'linear': dict(type='FCNHead', num_convs=0, kernel_size=1, concat_input=False),
    }
    common = dict(in_channels=192, channels=192, num_classes=CLASSES, dropout_ratio=0.0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return build_backbone(), MODELS.build(dict(**heads[head], **common)).eval()


def published_segmenter(vit):
    """Keys and shapes of the authors' Segmenter: the encoder's are timm's."""
    decoder = timm.create_model('vit_tiny_patch16_224', depth=2, num_classes=0)
    weights = {f'encoder.{key}': value for key, value in vit.state_dict().items()}
    weights |= {f'decoder.{key}': value for key, value in decoder.state_dict().items() if key.startswith('blocks.')}
    shapes = {
        'cls_emb': (1, CLASSES, 192), 'proj_dec.weight': (192, 192), 'proj_dec.bias': (192,), 'proj_patch': (192, 192),
        'proj_classes': (192, 192), 'decoder_norm.weight': (192,), 'decoder_norm.bias': (192,),
        'mask_norm.weight': (CLASSES,), 'mask_norm.bias': (CLASSES,),
    }  # fmt: skip
    return weights | {f'decoder.{key}': torch.randn(shape) for key, shape in shapes.items()}, decoder


def below(prefix, weights):
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def layer_norm(x, name, weights):
    return nn.functional.layer_norm(x, x.shape[-1:], weights[f'{name}.weight'], weights[f'{name}.bias'], eps=1e-6)


@torch.no_grad()
def test_the_authors_segmenter_gives_the_same_masks(vit):
    published, decoder = published_segmenter(vit)
    converted = convert_keys(published)
    backbone, head = build_segmenter('mask')
    backbone.load_state_dict(
        {k.removeprefix('backbone.'): v for k, v in converted.items() if k.startswith('backbone.')}
    )
    head.load_state_dict(
        {k.removeprefix('decode_head.'): v for k, v in converted.items() if k.startswith('decode_head.')}
    )
    assert len(converted) == len(published) - 3  # the classifier's weight and bias, and the patches' bias

    image = torch.randn(1, 3, 224, 224)
    weights = below('decoder.', published)
    tokens = vit.forward_features(image)[:, 1:] @ weights['proj_dec.weight'].T + weights['proj_dec.bias']
    tokens = decoder.eval().blocks(torch.cat([tokens, weights['cls_emb']], dim=1))
    tokens = nn.functional.layer_norm(
        tokens, (192,), weights['decoder_norm.weight'], weights['decoder_norm.bias'], 1e-6
    )
    patches = nn.functional.normalize(tokens[:, :-CLASSES] @ weights['proj_patch'], dim=-1)
    classes = nn.functional.normalize(tokens[:, -CLASSES:] @ weights['proj_classes'], dim=-1)
    masks = layer_norm(patches @ classes.transpose(1, 2), 'mask_norm', weights)
    torch.testing.assert_close(head(backbone(image)).flatten(2).transpose(1, 2), masks, atol=1e-4, rtol=1e-4)


def test_the_authors_linear_decoder_becomes_a_convolution(vit):
    published = {f'encoder.{key}': value for key, value in vit.state_dict().items()}
    published |= {'decoder.head.weight': torch.randn(CLASSES, 192), 'decoder.head.bias': torch.randn(CLASSES)}
    converted = convert_keys({f'module.{key}': value for key, value in published.items()})
    _, head = build_segmenter('linear')
    head.load_state_dict(
        {k.removeprefix('decode_head.'): v for k, v in converted.items() if k.startswith('decode_head.')}
    )
    torch.testing.assert_close(head.conv_seg.weight.flatten(1), published['decoder.head.weight'])


def test_an_mmseg_checkpoint_keeps_its_keys(vit):
    backbone, head = build_segmenter('mask')
    today = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    today |= {f'decode_head.{key}': value for key, value in head.state_dict().items()}
    assert convert_keys(today) == today
    assert convert_keys({key.replace('.ln', '.norm'): value for key, value in today.items()}).keys() == today.keys()
    assert convert_keys(backbone.state_dict()).keys() == backbone.state_dict().keys()


@torch.no_grad()
def test_the_patch_bias_of_an_mmseg_0x_checkpoint_is_not_lost():
    with_bias, without = build_backbone(patch_bias=True), build_backbone()
    for parameter in with_bias.parameters():
        nn.init.normal_(parameter, std=0.1)
    without.load_state_dict(convert_keys(with_bias.state_dict()))
    image = torch.randn(1, 3, 320, 256)  # of another size: the positions are interpolated
    torch.testing.assert_close(without(image), with_bias(image), atol=1e-4, rtol=1e-4)


def test_mmseg_resizes_the_position_table_of_a_converted_backbone(vit, tmp_path):
    torch.save(vit.state_dict(), tmp_path / 'timm.pth')
    convert([str(tmp_path / 'timm.pth'), str(tmp_path / 'mmseg.pth')])
    backbone = build_backbone(size=320, pretrained=str(tmp_path / 'mmseg.pth'))
    backbone.init_weights()
    assert backbone.pos_embed.shape == (1, 1 + 20 * 20, 192)
    torch.testing.assert_close(backbone.pos_embed[:, 0], vit.pos_embed[:, 0])
    torch.testing.assert_close(backbone.layers[2].ffn.layers[1].weight, vit.blocks[2].mlp.fc2.weight)


def test_keys_without_a_place_are_an_error_that_names_them(vit):
    with pytest.raises(ValueError, match=r'1 of .*dist_token'):
        convert_keys({**vit.state_dict(), 'dist_token': torch.zeros(1, 1, 192)})
    with pytest.raises(
        ValueError, match=r'known layout \(mmseg, .*timm-swin, dpt, transformers-depth\); the keys are conv1.weight'
    ):
        convert_keys({'conv1.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='the keys are none'):
        convert_keys({})
    with pytest.raises(ValueError, match=r"layout='keras' is not known"):
        convert_keys({}, 'keras')
    with pytest.raises(ValueError, match='patch_embed.proj.weight'):
        convert_keys(vit.state_dict(), 'google')


class Executed:
    def __reduce__(self):
        return print, ('executed',)


@pytest.mark.parametrize('content', ['missing', 'truncated', 'pickle', 'other', 'npz'])
def test_what_cannot_be_read_is_refused_and_leaves_the_old_file(content, tmp_path, capsys):
    source, target = tmp_path / ('in.npz' if content == 'npz' else 'in.pth'), tmp_path / 'out.pth'
    target.write_text('old')
    if content == 'truncated':
        torch.save({'a': torch.zeros(1000)}, source)
        source.write_bytes(source.read_bytes()[:500])
    elif content == 'pickle':
        torch.save({'state_dict': Executed()}, source)
    elif content == 'other':
        torch.save({'state_dict': {'conv1.weight': torch.zeros(1)}}, source)
    elif content == 'npz':
        source.write_text('not an archive')
    named = 'conv1.weight' if content == 'other' else re.escape(str(source))
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        convert([str(source), str(target)])
    assert 'executed' not in capsys.readouterr().out
    assert target.read_text() == 'old' and {path.name for path in tmp_path.iterdir()} <= {source.name, target.name}


def test_an_interrupted_write_leaves_the_old_file(vit, tmp_path, monkeypatch):
    torch.save(vit.state_dict(), tmp_path / 'in.pth')
    (tmp_path / 'out.pth').write_text('old')

    write = Path.write_bytes

    def disk_full(file, content):
        write(file, content[: len(content) // 2])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', disk_full)
    with pytest.raises(OSError, match='No space left'):
        convert([str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth')])
    assert (tmp_path / 'out.pth').read_text() == 'old' and len(list(tmp_path.iterdir())) == 2
