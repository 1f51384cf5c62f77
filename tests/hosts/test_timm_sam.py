"""timm's VisionTransformerSAM, windowed and global blocks, against a literal form."""

import pytest
import timm
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
from sam_walk import walk
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(1, 3, iters=3, k=7, temperature=20.0), fewtokens.SharedUpdate(2, (3, 2), spread=False),
    fewtokens.SharedUpdate(0, 3), fewtokens.AvgPool(3, (2, 3)), fewtokens.SharedUpdate(1, 3, size_bias=False),
]  # fmt: skip
SIZES = {'whole windows': (64, 96), 'padded': (72, 80), 'another size': (56, 104)}


KINDS = {
    'SAM': {},
    'norms of queries and keys, LayerScale': dict(qk_norm=True, init_values=0.5),
    'no relative positions': dict(use_rel_pos=False),
    'rotary positions': dict(use_rel_pos=False, use_rope=True, ref_feat_shape=((6, 6), (3, 3))),
    'no windows': dict(window_size=0, qk_norm=True),
    'rotary positions, no windows': dict(window_size=0, global_attn_indexes=range(6), use_rel_pos=False, use_rope=True),
}


def sam(**options):
    """Windows of 4 x 4 tokens; blocks 2 and 4 see the whole grid."""
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=6, num_heads=4, num_classes=5, neck_chans=16)
    settings |= dict(window_size=4, global_attn_indexes=(2, 4), use_rel_pos=True)
    return with_positions(randomize(VisionTransformerSAM(**{**settings, **options})))


def with_positions(model):
    for name, parameter in model.named_parameters():
        if 'rel_pos' in name:
            parameter.data *= 5
    return model


@pytest.fixture(params=REDUCERS, ids=range(len(REDUCERS)))
def reducer(request):
    return request.param


def literal(model, image, reducer):
    """The tokens after every block for one image, [H, W, C], whole."""
    x = model.patch_embed(image[None])
    x = (x + timm.layers.resample_abs_pos_embed_nhwc(model.pos_embed, x.shape[1:3]))[0]
    window = max(block.window_size for block in model.blocks)
    cell = (window, window) if window else tuple(x.shape[:2])
    ropes = [None if rope is None else rope.get_embed() for rope in (model.rope_window, model.rope_global)]
    ropes[0] = ropes[0] if window else None
    return walk(model.blocks, x, cell, ropes, reducer)


@torch.no_grad()
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('kind', KINDS)
def test_equals_the_literal_form(size, kind, reducer):
    if 'rotary' in kind and size == SIZES['another size']:
        size = SIZES['padded']  # timm's are of one size
    model = sam(**KINDS[kind], img_size=64 if size == SIZES['another size'] else size)
    images, before = torch.randn(2, 3, *size), snapshot(model)
    expected = [torch.stack(both) for both in zip(*(literal(model, image, reducer) for image in images))]
    host = model(images)
    with fewtokens.attach(model, reducer) as attachment:
        final, given = model.forward_intermediates(images)
        for one, other in zip(given, expected, strict=True):
            torch.testing.assert_close(one, other.permute(0, 3, 1, 2), rtol=1e-3, atol=3e-4)
        torch.testing.assert_close(final, model.neck(given[-1]))
        torch.testing.assert_close(model.forward_features(images), final)
        logits = model(images)
        assert logits.shape == host.shape and not torch.allclose(logits, host, atol=1e-4)
        (alone,) = model.forward_intermediates(images, indices=[4], intermediates_only=True, stop_early=True)
        torch.testing.assert_close(alone, given[4])
        assert attachment.passes == 4 and attachment.cluster_map.shape == (2, size[0] // 8, size[1] // 8)
    assert snapshot(model) == before and torch.equal(model(images), host)


@torch.no_grad()
def test_stages_nest(reducer):
    """Windows of fewer tokens are reduced again, with what part of them is in the image."""
    model, images = sam(img_size=(72, 80)), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))) as attachment:
        given = model.forward_intermediates(images, intermediates_only=True)
        assert attachment.token_counts == (90, 36) and attachment.cluster_map.max() < 36
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        once = model.forward_intermediates(images, intermediates_only=True)
    assert [torch.allclose(a, b, atol=1e-4) for a, b in zip(given, once)] == [True] * 3 + [False] * 3


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (80, 112)], ids=['whole windows', 'padded'])
def test_equal_tokens_are_worth_their_number(size):
    """Where a cluster's tokens are the same and positions play no part nothing is lost, beside padding neither."""
    model = sam(img_size=size, use_rel_pos=False)
    model.pos_embed.zero_()
    images = torch.randn(2, 3, size[0] // 16, size[1] // 16).repeat_interleave(16, 2).repeat_interleave(16, 3)
    host = model(images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(0, 2)) as attachment:
        torch.testing.assert_close(model(images), host, rtol=1e-3, atol=1e-4)
    assert attachment.passes == 1


@torch.no_grad()
def test_feature_extractors_get_whole_maps(reducer):
    options = dict(img_size=64, patch_size=8, embed_dim=48, depth=6, window_size=4, global_attn_indexes=(2, 4))
    extractor, x = timm.create_model('samvit_base_patch16', features_only=True, **options), torch.randn(2, 3, 64, 64)
    randomize(extractor)
    host = [f.shape for f in extractor(x)]
    with fewtokens.attach(extractor, reducer) as attachment:
        assert [f.shape for f in extractor(x)] == host and attachment.passes == 1


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced():
    model, x = sam(), torch.randn(2, 3, 64, 64)
    host = model(x)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(x), host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


def test_checkpointing_trains_as_without():
    gradients = []
    for checkpointing in (False, True):
        model, x = sam(img_size=(72, 80)), torch.randn(2, 3, 72, 80, generator=torch.Generator().manual_seed(2))
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))):
            model(x).square().mean().backward()
            features = model.forward_intermediates(x, indices=[2, 4], intermediates_only=True)
            sum(f.square().mean() for f in features).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name in ('blocks.3.attn.rel_pos_w', 'blocks.4.attn.rel_pos_h'):
        assert gradients[0][name].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['SAM', 'rotary positions'])
def test_copies_and_mixed_precision(kind):
    model, x = sam(img_size=(72, 80), **KINDS[kind]), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))):
        expected, mixed, half = run_copies_and_half(model, x)
    for one in (mixed, half):
        assert F.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model, x = sam(img_size=(72, 80), depth=3), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'options, reducer, message',
    [
        ({}, fewtokens.Hourglass(2, 5), r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'),
        (
            dict(window_size=0), fewtokens.SharedUpdate(2, 9),
            r'grid=\(9, 9\) must be at most \(8, 8\), tokens at its nominal',
        ),
        ({}, fewtokens.BipartiteMerge(2, 2), 'on no grid'),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(options, reducer, message):
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(sam(**options), reducer)


def test_supported_says_what_fits():
    text = fewtokens.supported(sam())
    assert 'timm VisionTransformerSAM, 6 blocks, 4 x 4 tokens in an attention window, 0 prefix tokens' in text
    assert 'outputs after any block that is asked for' in text
