"""timm's Beit and VisionTransformerRelPos, with positions of each block and shared ones, against a walk by hand."""

import pytest
import spread
import timm
import torch
from copies import run_copies_and_half
from models import IMAGES, randomize, snapshot
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0), fewtokens.AvgPool(2, (4, 5)),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)), spread=False), fewtokens.SharedUpdate(0, (5, 3)),
]  # fmt: skip
KINDS = {
    'Beit: positions of each block': (Beit, dict(use_rel_pos_bias=True, init_values=0.5)),
    'Beit: shared positions': (Beit, dict(use_shared_rel_pos_bias=True, use_abs_pos_emb=False, qkv_bias=False)),
    'Beit: both': (Beit, dict(use_shared_rel_pos_bias=True, use_rel_pos_bias=True, global_pool='token')),
    'Beit: no relative positions': (Beit, dict(swiglu_mlp=True, scale_mlp=True)),
    'RelPos: tables': (VisionTransformerRelPos, dict(rel_pos_type='bias', qk_norm=True)),
    'RelPos: a shared table, class token': (
        VisionTransformerRelPos, dict(rel_pos_type='bias', shared_rel_pos=True, class_token=True, fc_norm=True),
    ),
    'RelPos: MLPs': (VisionTransformerRelPos, dict(rel_pos_type='mlp', class_token=True, global_pool='token')),
    'RelPos: a shared MLP, norms after the branches': (
        VisionTransformerRelPos,
        dict(rel_pos_type='mlp-swin', shared_rel_pos=True, block_fn=ResPostRelPosBlock, init_values=0.5),
    ),
}  # fmt: skip
SHARED = 'Beit: shared positions'


def build(kind, depth=6, **options):
    cls, own = KINDS[kind]
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=depth, num_heads=4, num_classes=5)
    return randomize(cls(**{**settings, **own, **options}))


@pytest.fixture(params=REDUCERS, ids=lambda r: f'{type(r).__name__}{r.stages()[0].after}')
def reducer(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def positions(module, window, clusters, prefix):
    """What positions add to the logits of clusters [heads, N, N], a pair of tokens at a time."""
    entries = (2 * window[0] - 1) * (2 * window[1] - 1)
    if hasattr(module, 'mlp'):
        table = module.bias_act(module.mlp(module.rel_coords_log).flatten(0, 1)) * (module.bias_gain or 1)
        extra = torch.zeros(3, table.shape[1])
    else:
        table, extra = module.relative_position_bias_table[:entries], module.relative_position_bias_table[entries:]
    image = table.T.unflatten(1, (2 * window[0] - 1, 2 * window[1] - 1))[None]
    sides = [2 * side - 1 for side in clusters]
    image = F.interpolate(image, sides, mode='bilinear', align_corners=False)[0]
    places = [(row, column) for row in range(clusters[0]) for column in range(clusters[1])]
    bias = torch.zeros(len(image), len(places) + prefix, len(places) + prefix)
    for q, (row, column) in enumerate(places, prefix):
        for k, (other_row, other_column) in enumerate(places, prefix):
            bias[:, q, k] = image[:, row - other_row + clusters[0] - 1, column - other_column + clusters[1] - 1]
    if prefix:
        bias[:, 0], bias[:, :, 0] = extra[0][:, None], extra[1][:, None]
        bias[:, 0, 0] = extra[2]
    return bias


def attention(attn, x, bias):
    qkv = attn.qkv(x) if getattr(attn, 'q_bias', None) is None else (
        attn.qkv(x) + torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
    )  # fmt: skip
    query, key, value = qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    if hasattr(attn, 'q_norm'):
        query, key = attn.q_norm(query), attn.k_norm(key)
    logits = query @ key.transpose(2, 3) * attn.scale + bias
    return attn.proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))


def run_block(block, x, bias, apart):
    if isinstance(block, ResPostRelPosBlock):
        x = x + block.norm1(attention(block.attn, x, bias))
        return x + block.norm2(block.mlp(x))
    first, second = getattr(block, 'gamma_1', None), getattr(block, 'gamma_2', None)
    if hasattr(block, 'ls1'):
        first, second = (getattr(each, 'gamma', None) for each in (block.ls1, block.ls2))
    share = None if apart is None else spread.shares(x, apart)
    normed = block.norm1(x) if share is None else spread.norm(block.norm1, x, share)
    x = x + attention(block.attn, normed, bias) * (1 if first is None else first)
    plain = share is None or not isinstance(block.mlp, timm.layers.Mlp)
    return x + (block.mlp(block.norm2(x)) if plain else spread.mlp(block, x, share)) * (1 if second is None else second)


@torch.no_grad()
def walk(model, reducer, images, taps=()):
    """(normed output, {tap: tokens}) of a reducer: block by block, with hooks and replaced calls nowhere."""
    x, prefix = model.patch_embed(images), model.num_prefix_tokens
    if prefix:
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
    if getattr(model, 'pos_embed', None) is not None:
        x = x + model.pos_embed
    grid = window = tuple(model.patch_embed.grid_size)
    shared = model.rel_pos_bias if isinstance(model, Beit) else model.shared_rel_pos
    sizes, apart, records, outputs = None, None, [], {}

    def whole(tokens):
        head, tokens = tokens[:, :prefix], tokens[:, prefix:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    for index, block in enumerate(model.blocks):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, prefix:], grid, sizes)
                x, grid, sizes = torch.cat([x[:, :prefix], reduced.tokens], dim=1), reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
                apart = None if reduced.spreads is None else F.pad(reduced.spreads, (prefix, 0))
        bias = torch.zeros(())
        own = block.attn if isinstance(model, Beit) else block.attn.rel_pos
        if own is not None and getattr(own, 'relative_position_index', None) is not None:
            bias = bias + positions(own, window, grid, prefix)
        if shared is not None:
            bias = bias + positions(shared, window, grid, prefix)
        if records and reducer.size_bias and sizes is not None:
            bias = bias + F.pad(sizes.log(), (prefix, 0))[:, None, None]
        x = run_block(block, x, bias, apart)
        if index in taps:
            outputs[index] = whole(x)
    return (model.norm(whole(x)) if reducer.restores == 'update' else whole(model.norm(x))), outputs


def test_forward_equals_the_walk(kind, reducer):
    model = build(kind)
    before = snapshot(model)
    with torch.no_grad():
        host = model(IMAGES)
    expected, _ = walk(model, reducer, IMAGES)
    with fewtokens.attach(model, reducer) as attachment, torch.no_grad():
        torch.testing.assert_close(model.forward_features(IMAGES), expected, rtol=1e-3, atol=1e-4)
        given = model(IMAGES)
        torch.testing.assert_close(given, model.forward_head(expected), rtol=1e-3, atol=1e-4)
        assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-3)
        assert (attachment.passes, attachment.skipped) == (2, 0)
        assert attachment.cluster_map.shape == (2, 8, 8)
    assert snapshot(model) == before
    with torch.no_grad():
        assert torch.equal(model(IMAGES), host)


@torch.no_grad()
@pytest.mark.parametrize(
    'indices, options',
    [
        (None, {}), (2, dict(norm=True)), ([1, 3], dict(stop_early=True, intermediates_only=True)),
        ([0, 2, 5], dict(output_fmt='NLC')), ([5], dict(norm=True, intermediates_only=True)),
    ],
)  # fmt: skip
def test_intermediates_equal_the_walk(indices, options, reducer):
    for kind in ('Beit: both', 'RelPos: MLPs'):
        model = build(kind)
        wanted = sorted({i % 6 for i in indices} if isinstance(indices, list) else range(6 - (indices or 6), 6))
        expected, outputs = walk(model, reducer, IMAGES, wanted)
        with fewtokens.attach(model, reducer):
            given = model.forward_intermediates(IMAGES, indices=indices, **options)
        if not options.get('intermediates_only'):
            final, given = given
            torch.testing.assert_close(final, expected, rtol=1e-3, atol=1e-4)
        for one, index in zip(given, wanted, strict=True):
            tokens = outputs[index]
            if options.get('norm'):
                tokens = expected if index == 5 else model.norm(tokens)
            one = one if one.ndim == 3 else one.flatten(2).transpose(1, 2)
            torch.testing.assert_close(one, tokens[:, 1:], rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('name', ['beitv2_base_patch16_224', 'vit_relpos_small_patch16_224'])
def test_feature_extractors_get_whole_maps(name, reducer):
    extractor = timm.create_model(name, img_size=64, patch_size=8, features_only=True, depth=6, embed_dim=48)
    randomize(extractor)
    host = [f.shape for f in extractor(IMAGES)]
    with fewtokens.attach(extractor, reducer) as attachment:
        assert [f.shape for f in extractor(IMAGES)] == host and attachment.passes == 1


@torch.no_grad()
def test_blocks_walked_by_hand_give_whole_tokens(reducer):
    model = build(SHARED)
    _, outputs = walk(model, reducer, IMAGES, range(6))
    with fewtokens.attach(model, reducer):
        x = torch.cat([model.cls_token.expand(2, -1, -1), model.patch_embed(IMAGES)], dim=1)
        bias = model.rel_pos_bias()
        for index, block in enumerate(model.blocks):
            # What is shared may come as the second argument as well as by name.
            x = block(x, bias)
            torch.testing.assert_close(x, outputs[index], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced(kind):
    model = build(kind)
    host = model(IMAGES)
    attachment = fewtokens.attach(model, fewtokens.SharedUpdate(2, 8))
    with pytest.warns(UserWarning, match='too few'):
        assert torch.equal(model(IMAGES), host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
@pytest.mark.parametrize('fused', [True, False])
def test_another_input_size_while_attached(fused):
    for kind in KINDS:
        model, reducer = build(kind), fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)), spread=False)
        for block in model.blocks:
            block.attn.fused_attn = fused
        with fewtokens.attach(model, reducer) as attachment:
            model.set_input_size(img_size=(72, 96))
            images = torch.randn(1, 3, 72, 96)
            expected, _ = walk(model, reducer, images)
            torch.testing.assert_close(model.forward_features(images), expected, rtol=1e-3, atol=1e-4)
        assert attachment.token_counts == (108, 9)


@pytest.mark.parametrize('kind', ['Beit: both', 'RelPos: a shared table, class token', 'RelPos: tables'])
def test_checkpointing_trains_as_without(kind, reducer):
    gradients = []
    for checkpointing in (False, True):
        model = build(kind)
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, reducer):
            model(IMAGES).square().sum().backward()
            features = model.forward_intermediates(IMAGES, indices=[2, 4], intermediates_only=True)
            sum(f.square().sum() for f in features).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    tables = [name for name in gradients[0] if 'bias_table' in name]
    assert tables and all(gradients[0][name].abs().sum() > 0 for name in tables)
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_copies_and_mixed_precision(kind):
    model = build(kind)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)))):
        expected, mixed, half = run_copies_and_half(model, IMAGES)
    spread = (expected - expected.mean()).abs().mean()
    assert (mixed - expected).abs().mean() < spread and (half - expected).abs().mean() < spread


@pytest.mark.parametrize('kind', ['Beit: both', 'RelPos: MLPs'])
def test_compiled_without_a_break(kind):
    torch._dynamo.reset()
    model = build(kind, depth=3)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 2), ((6, 6), (3, 3)))), torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
    torch._dynamo.reset()


def test_what_leaves_no_grid_is_refused():
    with pytest.raises(ValueError, match='BipartiteMerge leaves tokens on no grid'):
        fewtokens.attach(build(SHARED), fewtokens.BipartiteMerge(2, 6))
    with pytest.raises(ValueError, match=r'grid=\(9, 9\) must be at most \(8, 8\)'):
        fewtokens.attach(build(SHARED), fewtokens.SharedUpdate(2, 9))


def test_supported_says_what_positions_there_are():
    text = fewtokens.supported(build(SHARED))
    assert 'timm Beit, 6 blocks, 8 x 8 tokens at its nominal input size, 1 prefix tokens' in text
    assert 'relative positions: methods that keep a grid' in text
    assert 'timm VisionTransformerRelPos' in fewtokens.supported(build('RelPos: MLPs'))
