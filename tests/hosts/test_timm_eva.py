"""timm's Eva, with absolute and rotary positions, against a walk block by block."""

import pytest
import timm
import torch
from copies import run_copies_and_half
from literal import add_spreads, spread, with_prefix
from models import IMAGES, randomize, snapshot
from timm.models.eva import Eva
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3))),
    fewtokens.AvgPool(2, (4, 5)), fewtokens.BipartiteMerge((1, 2, 4), 6),
    fewtokens.GradualUpdate((1, 3), 0.3),
]  # fmt: skip
ROTARY = dict(use_rot_pos_emb=True)
KINDS = {
    'EVA': {},
    'EVA-02': dict(**ROTARY, ref_feat_shape=(4, 4), swiglu_mlp=True, scale_mlp=True, qkv_fused=False),
    'DINOv3': dict(
        **ROTARY, rope_type='dinov3', rope_rotate_half=True, num_reg_tokens=4, use_abs_pos_emb=False, init_values=0.5,
        dynamic_img_size=True, global_pool='avg', use_fc_norm=False,
    ),
    'Perception Encoder': dict(
        **ROTARY, attn_type='rope', use_pre_transformer_norm=True, rope_grid_indexing='xy', rope_grid_offset=1.0,
        global_pool='map', use_fc_norm=False,
    ),
    'frequencies of each block and head': dict(
        **ROTARY, rope_type='mixed', rope_temperature=10.0, dynamic_img_size=True, dynamic_img_pad=True,
    ),
    'positions of an image within a text': dict(**ROTARY, rope_type='mrope', rope_mrope_section=(1, 1, 1)),
    'fewer keys than queries': dict(**ROTARY, attn_type='rope', qkv_fused=False, num_kv_heads=2, qk_norm=True),
    'no prefix tokens, norms after the branches': dict(**ROTARY, class_token=False, use_post_norm=True),
}  # fmt: skip


def eva(depth=6, **options):
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=depth, num_heads=4, num_classes=5)
    model = randomize(Eva(**{**settings, **options}))
    for block in model.blocks:
        # A buffer that timm fills by hand.
        if getattr(block.attn, 'k_bias', None) is not None:
            block.attn.k_bias.zero_()
    return model


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def reducer(request):
    return request.param


@torch.no_grad()
def walk(model, reducer, images, taps=()):
    """(normed output, {tap: tokens}) of a reducer: block by block, with hooks and replaced calls nowhere."""
    x, ropes = model._pos_embed(model.patch_embed(images))
    x, count = model.norm_pre(x), model.patch_embed.dynamic_feat_size(images.shape[2:])
    prefix, grid, sizes, records, outputs = model.num_prefix_tokens, tuple(count), None, [], {}
    labels = apart = None

    def whole(tokens):
        head, tokens = tokens[:, :prefix], tokens[:, prefix:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    # What each block gets of the model, and the positions of the tokens that it works on.
    each = list(ropes) if model.rope_mixed else [ropes] * len(model.blocks)
    moved = list(each)
    for index, block in enumerate(model.blocks):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, prefix:], grid, sizes)
                apart = add_spreads(reduced, sizes, apart)
                x = torch.cat([x[:, :prefix], reduced.tokens], dim=1)
                labels = reduced.labels if labels is None else reduced.labels.gather(1, labels)
                if ropes is not None:
                    moved = [move(one, now, labels, reduced, grid) for one, now in zip(each, moved)]
                grid, sizes = reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
        mask = None
        if records and reducer.size_bias and sizes is not None:
            mask = F.pad(sizes.log(), (prefix, 0))[:, None, None].to(x.dtype)
        parts = (block.mlp.fc1, block.mlp.act) if type(block.mlp).__name__ == 'Mlp' else (None, None)
        told = with_prefix(apart, prefix) if type(block).__name__ == 'EvaBlock' else None
        with spread(block.norm1, block.norm2, *parts, told):
            x = block(x, rope=moved[index], attn_mask=mask)
        if index in taps:
            outputs[index] = whole(x)
    return (model.norm(whole(x)) if reducer.restores == 'update' else whole(model.norm(x))), outputs


def move(rope, now, labels, reduced, grid):
    """The positions of a stage's tokens [B, heads, M, 2D]: means over the tokens of the image, cluster by cluster.

    A cluster of none has the mean of its place on the grid of the stage before, whose positions are `now`.
    """
    rope = rope if rope.ndim == 3 else rope[None]
    now = now if now.ndim == 4 else rope[None]
    means = torch.zeros(len(labels), len(rope), reduced.tokens.shape[1], rope.shape[2])
    if reduced.grid is not None:
        image = now.transpose(2, 3).unflatten(3, grid).flatten(0, 1)
        pooled = F.adaptive_avg_pool2d(image, reduced.grid).flatten(2).unflatten(0, now.shape[:2])
        means += pooled.transpose(2, 3)
    for sample, of_sample in enumerate(labels):
        for cluster in of_sample.unique():
            means[sample, :, cluster] = rope[:, of_sample == cluster].mean(dim=1)
    return means


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_forward_equals_the_walk(options, reducer):
    model = eva(**options)
    images = IMAGES
    if 'dynamic_img_size' in options:
        images = torch.randn(2, 3, 60, 91) if 'dynamic_img_pad' in options else torch.randn(2, 3, 64, 96)
    before = snapshot(model)
    with torch.no_grad():
        host = model(images)
    expected, _ = walk(model, reducer, images)
    with fewtokens.attach(model, reducer) as attachment, torch.no_grad():
        torch.testing.assert_close(model.forward_features(images), expected)
        given = model(images)
        torch.testing.assert_close(given, model.forward_head(expected))
        assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-3)
        assert (attachment.passes, attachment.skipped) == (2, 0)
        assert attachment.cluster_map.shape == (2, *(-(-side // 8) for side in images.shape[2:]))
    assert snapshot(model) == before
    with torch.no_grad():
        assert torch.equal(model(images), host)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['EVA-02', 'frequencies of each block and head'])
@pytest.mark.parametrize(
    'indices, options',
    [
        (None, {}), (2, dict(norm=True)), ([1, 3], dict(stop_early=True, intermediates_only=True)),
        ([0, 2, 5], dict(return_prefix_tokens=True, output_fmt='NLC')), ([5], dict(norm=True, intermediates_only=True)),
    ],
)  # fmt: skip
def test_intermediates_equal_the_walk(indices, options, kind, reducer):
    model = eva(**KINDS[kind])
    wanted = sorted({i % 6 for i in indices} if isinstance(indices, list) else range(6 - (indices or 6), 6))
    expected, outputs = walk(model, reducer, IMAGES, wanted)
    with fewtokens.attach(model, reducer):
        given = model.forward_intermediates(IMAGES, indices=indices, **options)
    if not options.get('intermediates_only'):
        final, given = given
        torch.testing.assert_close(final, expected)
    for one, index in zip(given, wanted, strict=True):
        tokens = outputs[index]
        if options.get('norm'):
            tokens = expected if index == 5 else model.norm(tokens)
        one = one[0] if isinstance(one, tuple) else one
        torch.testing.assert_close(one, tokens[:, 1:] if one.ndim == 3 else image_of(tokens))


def image_of(tokens):
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8))


@torch.no_grad()
def test_feature_extractors_get_whole_maps(reducer):
    extractor = timm.create_model('eva02_tiny_patch14_224', img_size=64, patch_size=8, features_only=True, depth=6)
    randomize(extractor)
    host = [f.shape for f in extractor(IMAGES)]
    with fewtokens.attach(extractor, reducer) as attachment:
        assert [f.shape for f in extractor(IMAGES)] == host and attachment.passes == 1


@torch.no_grad()
@pytest.mark.parametrize('kind', ['EVA-02', 'frequencies of each block and head'])
def test_blocks_walked_by_hand_give_whole_tokens(kind, reducer):
    model = eva(**KINDS[kind])
    _, outputs = walk(model, reducer, IMAGES, range(6))
    with fewtokens.attach(model, reducer):
        x, rope = model._pos_embed(model.patch_embed(IMAGES))
        for index, block in enumerate(model.blocks):
            # Positions may come as the second argument as well as by name.
            x = block(x, rope[index] if model.rope_mixed else rope)
            torch.testing.assert_close(x, outputs[index])


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_nothing_changes_where_nothing_is_reduced(kind):
    model = eva(**KINDS[kind])
    host = model(IMAGES)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 9)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(IMAGES), host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
def test_larger_images_take_more_clusters_than_the_nominal_grid_has_tokens():
    model, images, reducer = eva(**KINDS['DINOv3']), torch.randn(1, 3, 128, 160), fewtokens.SharedUpdate(2, (10, 12))
    expected, _ = walk(model, reducer, images)
    with fewtokens.attach(model, reducer) as attachment:
        torch.testing.assert_close(model.forward_features(images), expected)
    assert attachment.token_counts == (320, 120)


@pytest.mark.parametrize('kind', ['EVA-02', 'frequencies of each block and head'])
def test_checkpointing_trains_as_without(kind, reducer):
    gradients = []
    for checkpointing in (False, True):
        model = eva(**KINDS[kind])
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, reducer):
            model(IMAGES).square().sum().backward()
            features = model.forward_intermediates(IMAGES, indices=[2, 4], intermediates_only=True)
            sum(f.square().sum() for f in features).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    if model.rope_mixed:
        assert all(one['rope.freqs'][:, index].abs().sum() > 0 for one in gradients for index in range(6))
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-3)


def test_coordinates_that_training_shifts_are_those_of_the_pass():
    model = eva(**KINDS['DINOv3'], rope_shift_coords=0.5, rope_jitter_coords=2.0)
    model.train()
    reducer = fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)))
    torch.manual_seed(5)
    expected, _ = walk(model, reducer, IMAGES)
    with fewtokens.attach(model, reducer), torch.no_grad():
        torch.manual_seed(5)
        torch.testing.assert_close(model.forward_features(IMAGES), expected)


def test_what_leaves_no_grid_is_refused():
    model = eva(**ROTARY, patch_drop_rate=0.5)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        model.eval()(IMAGES)
        with pytest.raises(ValueError, match='33 tokens came where 8 x 8 and 1 prefix tokens were due'):
            model.train()(IMAGES)
        with pytest.raises(ValueError, match='attn_mask and is_causal are for all tokens'):
            model.eval().forward_features(IMAGES, attn_mask=torch.zeros(65, 65))
        with pytest.raises(ValueError, match='attn_mask and is_causal are for all tokens'):
            model.forward_features(IMAGES, is_causal=True)
        assert model(IMAGES).shape == (2, 5)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['EVA-02', 'frequencies of each block and head'])
def test_copies_and_mixed_precision(kind, reducer):
    model = eva(**KINDS[kind])
    with fewtokens.attach(model, reducer):
        expected, mixed, half = run_copies_and_half(model, IMAGES)
    spread = (expected - expected.mean()).abs().mean()
    assert (mixed - expected).abs().mean() < spread and (half - expected).abs().mean() < spread


@pytest.mark.parametrize('kind', ['DINOv3', 'frequencies of each block and head'])
def test_compiled_without_a_break(kind):
    torch._dynamo.reset()
    model = eva(depth=3, **KINDS[kind])
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 2), ((6, 6), (3, 3)))), torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
    torch._dynamo.reset()


@torch.no_grad()
def test_a_clip_of_eva(reducer):
    open_clip = pytest.importorskip('open_clip')
    vision = dict(image_size=224, timm_model_name='eva02_tiny_patch14_224', timm_model_pretrained=False, timm_pool='')
    text = dict(context_length=8, vocab_size=50, width=16, heads=2)
    model = randomize(open_clip.CustomTextCLIP(192, vision | dict(timm_proj=None), text))
    images = torch.randn(1, 3, 224, 224)
    host = model.encode_image(images)
    with fewtokens.attach(model, reducer) as attachment:
        given = model.encode_image(images)
        assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-4)
        assert attachment.host.path == 'visual.trunk' and attachment.token_counts[0] == 256
    assert torch.equal(model.encode_image(images), host)


def test_supported_says_what_positions_there_are():
    text = fewtokens.supported(eva(**KINDS['DINOv3']))
    assert 'timm Eva, 6 blocks, 8 x 8 tokens at its nominal input size, 5 prefix tokens' in text
    assert "rotary positions: a reduced token has the mean of its members'" in text
    assert 'rotary' not in fewtokens.supported(eva())
