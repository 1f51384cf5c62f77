"""Token merging as published, inside blocks."""

import copy

import pytest
import timm
import torch
from models import beit, snapshot, vit
from torch.nn import functional as F

import fewtokens
from fewtokens.measure.macs import count_macs
from fewtokens.ops import dense

IMAGES = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def timm_vit(**options):
    torch.manual_seed(0)
    options = dict(depth=4, img_size=128, num_classes=0, class_token=True) | options
    return timm.create_model('vit_tiny_patch16_224', **options).eval()


def attend(block, x, sizes, heads):
    """Attention with as many votes for a key as it has members, and the mean over heads of its keys."""
    attn = block.attn
    if hasattr(attn, 'qkv'):
        qkv, proj = attn.qkv(x), attn.proj
    else:
        qkv, proj = F.linear(x, attn.attn.in_proj_weight, attn.attn.in_proj_bias), attn.attn.out_proj
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + F.pad(sizes, (1, 0), value=1).log()[:, None, None]
    return proj((logits.softmax(3) @ v).transpose(1, 2).flatten(2)), k.mean(dim=1)


def walk(blocks, x, r, heads, places):
    """The published steps, a block after the other, and all tokens again at the end."""
    sizes = x.new_ones(x.shape[0], x.shape[1] - 1)
    whole = torch.arange(x.shape[1] - 1).expand(len(x), -1)
    for index, block in enumerate(blocks):
        update, keys = attend(block, block.norm1(x), sizes, heads)
        x = x + update
        if index in places:
            few = min(r, sizes.shape[1] // 2)
            merged, labels, sizes = dense.merge_pairs(x[:, 1:], few, sizes=sizes, metric=keys[:, 1:])
            x, whole = torch.cat([x[:, :1], merged], dim=1), labels.gather(1, whole)
        mlp = block.mlp if hasattr(block, 'mlp') else block.ffn.layers
        x = x + mlp(block.norm2(x))
    return torch.cat([x[:, :1], x[:, 1:].gather(1, whole[..., None].expand(-1, -1, x.shape[2]))], dim=1)


@torch.no_grad()
@pytest.mark.parametrize('r, places', [(9, (0, 1, 2, 3)), (20, (1, 2, 3)), (40, (0, 2))])
def test_timm_equals_the_published_steps(r, places):
    model = timm_vit()
    x = model._pos_embed(model.patch_embed(IMAGES))
    with fewtokens.attach(model, fewtokens.ToMe(places, r)) as attachment:
        given = model.forward_features(IMAGES)
    torch.testing.assert_close(given, model.norm(walk(model.blocks, x, r, 3, places)), rtol=1e-4, atol=1e-4)
    assert attachment.cluster_map.unique().numel() == attachment.token_counts[1] < 64


@torch.no_grad()
def test_mmseg_equals_the_published_steps():
    model = vit(img_size=128, out_indices=(5,), final_norm=True)
    images = torch.randn(2, 3, 128, 128)
    tokens, grid = model.patch_embed(images)
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1) + model.pos_embed
    places = tuple(range(6))
    (given,) = model_outputs(model, fewtokens.ToMe(places, 12), images)
    expected = model.norm1(walk(model.layers, tokens, 12, 4, places))[:, 1:].transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def model_outputs(model, reducer, images):
    with fewtokens.attach(model, reducer):
        return model(images)


@torch.no_grad()
def test_outputs_that_are_asked_for_are_whole_and_the_chain_goes_on_with_fewer():
    model, reducer = timm_vit(), fewtokens.ToMe((0, 1, 2, 3), 10)
    with fewtokens.attach(model, reducer):
        alone = model.forward_features(IMAGES)
        final, found = model.forward_intermediates(IMAGES, indices=[0, 2], output_fmt='NLC')
    torch.testing.assert_close(final, alone)
    assert [tuple(tokens.shape) for tokens in found] == [(2, 64, 192)] * 2


def test_training_equals_training_with_checkpointing():
    found = []
    for checkpointed in (False, True):
        model = timm_vit().train()
        model.set_grad_checkpointing(checkpointed)
        with fewtokens.attach(model, fewtokens.ToMe((0, 1, 2), 10)):
            model.forward_features(IMAGES).square().mean().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_removed_copied_and_compiled():
    model = timm_vit()
    before, reducer = model.forward_features(IMAGES), fewtokens.ToMe((0, 1, 2), 10)
    with fewtokens.attach(model, reducer):
        reduced = model.forward_features(IMAGES)
        torch.testing.assert_close(copy.deepcopy(model).forward_features(IMAGES), reduced)
        compiled = torch.compile(model.forward_features, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(IMAGES), reduced, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, reduced, atol=1e-3)
    assert torch.equal(model.forward_features(IMAGES), before)


@torch.no_grad()
def test_macs_are_those_of_merging_between_attention_and_mlp():
    model = timm_vit()
    full = count_macs(model, IMAGES[:1], lambda model, x: model.forward_features(x))
    with fewtokens.attach(model, fewtokens.ToMe((0, 1, 2, 3), 10)):
        given = count_macs(model, IMAGES[:1], lambda model, x: model.forward_features(x))
    tokens, saved = 65, 0
    for _ in range(4):
        saved += 4 * 192**2 * (65 - tokens) + 2 * 192 * (65**2 - tokens**2) + 8 * 192**2 * (65 - (tokens - 10))
        tokens -= 10
    extra = full - saved
    # Besides, keys' means: one head's projection; and similarities of halves.
    assert extra < given < extra + 4 * 65 * 192 * 64 + 4 * 33 * 33 * 64


def test_hosts_whose_blocks_are_not_known_are_refused():
    with pytest.raises(ValueError, match='relative positions'):
        fewtokens.attach(beit(), fewtokens.ToMe((0, 1), 4))
    eva = timm.create_model('eva02_tiny_patch14_224', depth=2, img_size=28).eval()
    before = snapshot(eva)
    with pytest.raises(ValueError, match='merges between attention and MLP'):
        fewtokens.attach(eva, fewtokens.ToMe((0, 1), 1))
    assert snapshot(eva) == before


def test_keys_of_quantised_weights_are_refused():
    model = torch.ao.quantization.quantize_dynamic(timm_vit(depth=2), {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match='reads the weights of .* quantised: BipartiteMerge does without'):
        fewtokens.attach(model, fewtokens.ToMe((0, 1), 4))
