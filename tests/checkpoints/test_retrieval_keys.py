"""Synthetic checkpoints in the published layout, and CLIP4Clip's seqTransf written again from its formula."""

import math
from collections import OrderedDict

import open_clip
import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

import fewtokens.openmmlab  # noqa: F401
from fewtokens.checkpoints.retrieval_keys import convert_retrieval_keys
from fewtokens.cli.convert_checkpoint import main as convert
from fewtokens.openmmlab.model import build_model
from fewtokens.retrieval.model import ClipRetrieval

CLIP = dict(
    embed_dim=64,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=16, layers=2, width=64, head_width=32),
    text_cfg=dict(context_length=10, vocab_size=49408, width=64, heads=2, layers=2),
)
LAYERS, HEADS, FRAMES, WIDTH = 2, 2, 10, 64


def published(temporal: bool) -> dict[str, torch.Tensor]:
    """Every tensor random: fresh norms and biases, ones and zeros, would hide a mix-up."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f'clip.{name}': value.shape for name, value in open_clip.CLIP(**CLIP).state_dict().items()}
    if temporal:
        shapes['frame_position_embeddings.weight'] = (FRAMES, WIDTH)
        for layer in range(LAYERS):
            parts = {'attn.in_proj_weight': (3 * WIDTH, WIDTH), 'attn.in_proj_bias': (3 * WIDTH,)}
            parts |= {'attn.out_proj.weight': (WIDTH, WIDTH), 'attn.out_proj.bias': (WIDTH,)}
            parts |= {f'ln_{i}.{kind}': (WIDTH,) for i in (1, 2) for kind in ('weight', 'bias')}
            parts |= {'mlp.c_fc.weight': (4 * WIDTH, WIDTH), 'mlp.c_fc.bias': (4 * WIDTH,)}
            parts |= {'mlp.c_proj.weight': (WIDTH, 4 * WIDTH), 'mlp.c_proj.bias': (WIDTH,)}
            shapes |= {f'transformerClip.resblocks.{layer}.{name}': shape for name, shape in parts.items()}
    weights = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    sizes = dict(input_resolution=32, context_length=10, vocab_size=49408)
    return weights | {f'clip.{name}': torch.tensor(size) for name, size in sizes.items()}


def seq_transf(weights: dict[str, torch.Tensor], frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Video embeddings [B, D] from frame embeddings [B, T, D]: CLIP4Clip's similarity module, head by head."""
    x = frames + weights['frame_position_embeddings.weight'][: frames.shape[1]]
    hidden = torch.where(mask, 0.0, -1e6)[:, None, None, :]
    for layer in range(LAYERS):
        own = {
            k.split(f'{layer}.', 1)[1]: v
            for k, v in weights.items()
            if k.startswith(f'transformerClip.resblocks.{layer}.')
        }
        norm = F.layer_norm(x, (WIDTH,), own['ln_1.weight'], own['ln_1.bias'])
        qkv = norm @ own['attn.in_proj_weight'].T + own['attn.in_proj_bias']
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        attention = (q @ k.transpose(2, 3) / math.sqrt(WIDTH / HEADS) + hidden).softmax(3)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ own['attn.out_proj.weight'].T + own['attn.out_proj.bias']
        norm = F.layer_norm(x, (WIDTH,), own['ln_2.weight'], own['ln_2.bias'])
        inner = norm @ own['mlp.c_fc.weight'].T + own['mlp.c_fc.bias']
        x = x + (inner * torch.sigmoid(1.702 * inner)) @ own['mlp.c_proj.weight'].T + own['mlp.c_proj.bias']
    x = F.normalize(x + frames, dim=2)
    return F.normalize((x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True), dim=1)


@torch.no_grad()
@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('temporal', [False, True])
def test_same_outputs_as_published(temporal, wrapped):
    weights = published(temporal)
    given = {f'module.{name}': value for name, value in weights.items()} if wrapped else weights
    setting = dict(layers=LAYERS, heads=HEADS, max_frames=FRAMES) if temporal else None
    model = ClipRetrieval(dict(config=CLIP), temporal=setting).eval()
    model.load_state_dict(convert_retrieval_keys(given))
    clip = open_clip.CLIP(**CLIP).eval()
    own = [name for name in weights if name.startswith('clip.') and weights[name].is_floating_point()]
    clip.load_state_dict(OrderedDict((name.removeprefix('clip.'), weights[name]) for name in own))

    video = torch.randn(2, 4, 3, 32, 32)
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    frames = clip.encode_image(video.flatten(0, 1)).unflatten(0, (2, 4))
    if temporal:
        expected = seq_transf(weights, frames, mask)
    else:
        expected = F.normalize((F.normalize(frames, dim=2) * mask[:, :, None]).sum(1), dim=1)
    torch.testing.assert_close(model(video, mask=mask), expected, atol=1e-5, rtol=1e-4)
    tokens = open_clip.SimpleTokenizer()(['a cat'], 10)
    torch.testing.assert_close(model.encode_text(['a cat']), clip.encode_text(tokens, normalize=True))


def test_half_precision_becomes_single():
    weights = {name: value.half() for name, value in published(False).items()}
    assert {value.dtype for value in convert_retrieval_keys(weights).values()} == {torch.float32}


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        ('clip.visual.conv2.weight', 'no place in ClipRetrieval.*conv2'),
        ('cross.embeddings.position_embeddings.weight', 'no place.*cross'),
        ('clip.visual.transformer.resblocks.6.cluster.cluster_embed', 'no place.*cluster_embed'),
        ('clip.visual.transformer.resblocks.6.tokencluster_inter.cls_multiplier', 'no place.*cls_multiplier'),
        ('lstm_visual.weight_ih_l0', 'no place.*lstm'),
    ],
)
def test_parts_without_a_place(extra, message):
    with pytest.raises(ValueError, match=message):
        convert_retrieval_keys({**published(False), extra: torch.zeros(1)})


BLOCK = 'clip.visual.transformer.resblocks.{}.tokencluster_inter'


@torch.no_grad()
@pytest.mark.parametrize('places', [(1,), (0, 1)])
def test_vectors_of_clusters(places):
    """And what CenterCLIP's code saves beside the weights that it uses."""
    weights = published(False)
    own = [torch.randn(3, WIDTH) for _ in places]
    extra = {f'{BLOCK.format(place)}.cluster_embed': vectors for place, vectors in zip(places, own)}
    extra |= {
        f'{BLOCK.format(1)}.cluster_frame_embed': torch.randn(2, 1, WIDTH),
        f'{BLOCK.format(1)}.spg': torch.ones(1),
    }
    extra['clip.visual.position_ids'] = torch.arange(5)[None]
    clusterings = [
        dict(type='SegmentClustering', segments=2, clusters=3, cluster_embedding=True, width=WIDTH) for _ in places
    ]
    one = len(places) == 1
    model = ClipRetrieval(
        dict(config=CLIP), clustering=clusterings[0] if one else clusterings, after=places[0] if one else places
    ).eval()
    model.load_state_dict(convert_retrieval_keys({**dict(reversed(extra.items())), **weights}))
    modules = [model.encoder.clustering] if one else model.encoder.clustering
    for module, vectors in zip(modules, own):
        assert torch.equal(module.cluster_embedding, vectors)


def test_another_models_weights():
    with pytest.raises(ValueError, match='not the weights of CLIP4Clip.*layer1.weight'):
        convert_retrieval_keys({'layer1.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='the keys are none'):
        convert_retrieval_keys(nn.Module().state_dict())


@pytest.mark.parametrize(
    ('arch', 'extra'),
    [
        ('auto', {}),
        ('clip4clip', {}),
        # What CenterCLIP's training writes beside the weights.
        ('centerclip', dict(epoch=5, global_step=7000, arch='CLIp4Clip', best_acc1=43.6, optimizer=dict(state={}))),
    ],
)
@pytest.mark.parametrize('temporal', [False, True])
def test_the_tool_makes_a_checkpoint_that_the_model_takes(temporal, arch, extra, tmp_path, capsys):
    weights = published(temporal)
    given = dict(state_dict={f'module.{name}': value for name, value in weights.items()}, **extra) if extra else weights
    torch.save(given, tmp_path / 'pytorch_model.bin.4')
    convert([str(tmp_path / 'pytorch_model.bin.4'), str(tmp_path / 'out.pth'), '--arch', arch])
    assert 'tensors of a ClipRetrieval' in capsys.readouterr().out
    setting = dict(type='ClipRetrieval', clip=dict(config=CLIP))
    if temporal:
        setting['temporal'] = dict(layers=LAYERS, heads=HEADS, max_frames=FRAMES)
    model = build_model(Config(dict(model=setting)), tmp_path / 'out.pth')
    assert torch.equal(model.clip.visual.conv1.weight, weights['clip.visual.conv1.weight'])
    if temporal:
        # A model of mean pooling has no place for the other's transformer, and is told so.
        with pytest.raises(ValueError, match='of another architecture.*unknown .encoder.temporal'):
            build_model(Config(dict(model=dict(setting, temporal=None))), tmp_path / 'out.pth')


def test_the_tool_refuses_other_weights_under_this_layout(tmp_path):
    torch.save({'blocks.0.attn.qkv.weight': torch.zeros(1)}, tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='not the weights of CLIP4Clip or CenterCLIP.*blocks.0'):
        convert([str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth'), '--arch', 'centerclip'])
    assert not (tmp_path / 'out.pth').exists()
