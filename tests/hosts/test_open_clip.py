"""open_clip's visual tower, by encode_image and by its intermediates, against a walk block by block."""

import open_clip
import pytest
import torch
from literal import add_spreads, spread, with_prefix
from models import IMAGES, randomize, snapshot
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3))),
    fewtokens.BipartiteMerge((1, 2), 6), fewtokens.GradualUpdate((1, 3), 0.3),
]  # fmt: skip
KINDS = {
    'plain': {},
    'its own attention': dict(block_type='custom', qk_norm=True),
    'mean of tokens': dict(pool_type='avg', final_ln_after_pool=True),
    'attentional pooling': dict(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4),
    'batch second': dict(batch_first=False),
}


def clip(batch_first=True, **options):
    vision = dict(image_size=64, layers=5, width=32, head_width=8, patch_size=8, **options)
    text = dict(context_length=8, vocab_size=50, width=16, heads=2, layers=1)
    model = open_clip.CLIP(16, vision, text)
    if not batch_first:
        model.visual.transformer.batch_first = False
        for block in model.visual.transformer.resblocks:
            block.attn.batch_first = False
    return randomize(model)


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def reducer(request):
    return request.param


@torch.no_grad()
def walk(visual, reducer, images, taps=()):
    """(what the tower returns, {tap: whole tokens}), with replaced calls nowhere."""
    x, grid, sizes, apart, records, outputs = visual._embeds(images), (8, 8), None, None, [], {}
    turn = (lambda t: t) if visual.transformer.batch_first else (lambda t: t.transpose(0, 1))

    def whole(x):
        tokens = x[:, 1:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([x[:, :1], tokens], dim=1)

    for index, block in enumerate(visual.transformer.resblocks):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, 1:], grid, sizes)
                apart = add_spreads(reduced, sizes, apart)
                x, grid, sizes = torch.cat([x[:, :1], reduced.tokens], dim=1), reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
        mask = None
        if records and reducer.size_bias and sizes is not None:
            bias = F.pad(sizes.log(), (1, 0))
            mask = bias.repeat_interleave(4, dim=0)[:, None].expand(-1, bias.shape[1], -1)
        told = with_prefix(apart, 1)
        parts = block.ln_1, block.ln_2, block.mlp.c_fc, block.mlp.gelu
        plain = type(block) is open_clip.transformer.ResidualAttentionBlock and told is not None
        with spread(*parts, turn(told) if plain else None):
            x = turn(block(turn(x), attn_mask=mask))
        if index in taps:
            outputs[index] = whole(x)
    pools_first = visual.attn_pool is not None or visual.final_ln_after_pool
    if reducer.restores == 'update' or pools_first:
        return visual._pool(whole(x))[0] @ visual.proj, outputs
    tokens = whole(visual.ln_post(x))
    return visual._global_pool(tokens)[0] @ visual.proj, outputs


@torch.no_grad()
@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_encode_image_equals_the_walk(options, reducer):
    model = clip(**options)
    before, host = snapshot(model), model.encode_image(IMAGES)
    expected, outputs = walk(model.visual, reducer, IMAGES, (2, 4))
    with fewtokens.attach(model, reducer) as attachment:
        given = model.encode_image(IMAGES)
        torch.testing.assert_close(given, expected)
        assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-4)
        found = model.visual.forward_intermediates(IMAGES, indices=[2, 4])
        torch.testing.assert_close(found['image_features'], expected)
        for image, index in zip(found['image_intermediates'], (2, 4), strict=True):
            torch.testing.assert_close(image, outputs[index][:, 1:].transpose(1, 2).unflatten(2, (8, 8)))
        assert attachment.passes == 2 and attachment.cluster_map.shape == (2, 8, 8)
    assert snapshot(model) == before and torch.equal(model.encode_image(IMAGES), host)


@torch.no_grad()
def test_tokens_for_dense_use_are_whole(reducer):
    model = clip()
    model.visual.output_tokens = True
    host = [t.shape for t in model.visual(IMAGES)]
    with fewtokens.attach(model, reducer):
        pooled, tokens = model.visual(IMAGES)
    assert [pooled.shape, tokens.shape] == host and tokens.isfinite().all()


def test_checkpointing_trains_as_without(reducer):
    gradients = []
    for checkpointing in (False, True):
        model = clip()
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, reducer):
            model.encode_image(IMAGES).square().sum().backward()
        gradients.append([p.grad for p in model.visual.parameters()])
    for given, expected in zip(*reversed(gradients)):
        torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_clip_on_timm(reducer):
    name = dict(timm_model_name='vit_tiny_patch16_224', timm_pool='', timm_proj='linear')
    vision = dict(image_size=224, timm_model_pretrained=False, **name)
    model = randomize(open_clip.CustomTextCLIP(16, vision, dict(context_length=8, vocab_size=50, width=16, heads=2)))
    images = torch.randn(1, 3, 224, 224)
    host = model.encode_image(images)
    with fewtokens.attach(model, reducer) as attachment:
        given = model.encode_image(images)
        assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-4)
        assert attachment.host.path == 'visual.trunk' and attachment.token_counts[0] == 196
    assert torch.equal(model.encode_image(images), host)
