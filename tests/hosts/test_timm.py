"""timm's VisionTransformer by every way in, against a walk block by block."""

import inspect

import pytest
import timm
import torch
from copies import run_copies_and_half
from literal import add_spreads, merge, spread, with_prefix
from models import IMAGES, randomize, snapshot
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3))),
    fewtokens.AvgPool(2, (4, 5)), fewtokens.BipartiteMerge((1, 2, 4), 6),
    fewtokens.GradualUpdate((1, 3), 0.3),
]  # fmt: skip
KINDS = {
    'plain': {},
    'without prefix tokens': dict(class_token=False, global_pool='avg'),
    'registers': dict(reg_tokens=4, no_embed_class=True),
    'LayerScale and norms of queries and keys': dict(init_values=0.5, qk_norm=True),
    'any size': dict(dynamic_img_size=True, dynamic_img_pad=True),
    'norms after the branches': dict(block_fn=timm.models.vision_transformer.ResPostBlock, init_values=0.5),
    'a norm after pooling': dict(global_pool='avg', fc_norm=True),
    'a norm before the blocks': dict(pre_norm=True),
}


def vit(depth=6, **options):
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=depth, num_heads=4, num_classes=5)
    return randomize(timm.models.vision_transformer.VisionTransformer(**{**settings, **options}))


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def reducer(request):
    return request.param


def parts_of(block):
    return block.norm1, block.norm2, block.mlp.fc1, block.mlp.act


@torch.no_grad()
def walk(model, reducer, images, taps=()):
    """(normed output, {tap: tokens}) of a reducer: block by block, with hooks and replaced calls nowhere."""
    x = model.patch_embed(images)
    grid = tuple(-(-side // 8) for side in images.shape[2:])
    x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
    prefix, sizes, apart, records, outputs = model.num_prefix_tokens, None, None, [], {}

    def whole(tokens):
        head, tokens = tokens[:, :prefix], tokens[:, prefix:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    for index, block in enumerate(model.blocks):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, prefix:], grid, sizes)
                apart = add_spreads(reduced, sizes, apart)
                x, grid, sizes = torch.cat([x[:, :prefix], reduced.tokens], dim=1), reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
        mask = None
        if records and reducer.size_bias and sizes is not None:
            mask = F.pad(sizes.log(), (prefix, 0))[:, None, None].to(x.dtype)
        with spread(*parts_of(block), with_prefix(apart, prefix) if type(block).__name__ == 'Block' else None):
            x = block(x, attn_mask=mask)
        if index in taps:
            outputs[index] = whole(x)
    return (model.norm(whole(x)) if reducer.restores == 'update' else whole(model.norm(x))), outputs


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_forward_equals_the_walk(options, reducer):
    model = vit(**options)
    images = torch.randn(2, 3, 60, 91) if 'dynamic_img_size' in options else IMAGES
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
@pytest.mark.parametrize(
    'indices, options',
    [
        (None, {}),
        (2, dict(norm=True)),
        ([1, 3], dict(stop_early=True, intermediates_only=True)),
        ([0, 2, 5], dict(return_prefix_tokens=True, output_fmt='NLC')),
        ([4], dict(norm=True, stop_early=True)),
        ([5], dict(norm=True, intermediates_only=True)),
        ([-1, -2], dict(output_dict=True)),
    ],
)  # fmt: skip
def test_intermediates_equal_the_walk(indices, options, reducer):
    model = vit(reg_tokens=2)
    wanted = sorted({i % 6 for i in indices} if isinstance(indices, list) else range(6 - (indices or 6), 6))
    expected, outputs = walk(model, reducer, IMAGES, wanted)
    with fewtokens.attach(model, reducer):
        given = model.forward_intermediates(IMAGES, indices=indices, **options)
        final = None
        if options.get('output_dict'):
            final, given = given['image_features'], given['image_intermediates']
        elif not options.get('intermediates_only'):
            final, given = given
        if final is not None and not (options.get('stop_early') and wanted[-1] != 5):
            torch.testing.assert_close(final, expected)
        for one, index in zip(given, wanted, strict=True):
            tokens = outputs[index]
            if options.get('norm'):
                tokens = expected if index == 5 else model.norm(tokens)
            one = one[0] if isinstance(one, tuple) else one
            image = tokens[:, 3:] if one.ndim == 3 else tokens[:, 3:].transpose(1, 2).unflatten(2, (8, 8))
            torch.testing.assert_close(one, image)
        # The pass is over: blocks called by hand see what they are given.
        tokens = torch.randn(2, 7, 32)
        assert model.blocks[5](tokens).shape == tokens.shape


def test_methods_go_on_saying_which_options_they_take():
    model = vit()
    methods = [model.forward_features, model.forward_intermediates, model.patch_embed.forward, model.blocks[3].forward]
    expected = [inspect.signature(method) for method in methods]
    with fewtokens.attach(model, fewtokens.AvgPool(2, 4)):
        replaced = [model.forward_features, model.forward_intermediates, model.patch_embed.forward]
        replaced.append(model.blocks[3].forward)
        assert [inspect.signature(method) for method in replaced] == expected


@torch.no_grad()
def test_layers_and_feature_extractors_see_whole_tokens(reducer):
    model = vit()
    _, outputs = walk(model, reducer, IMAGES, range(6))
    with fewtokens.attach(model, reducer):
        for one, index in zip(model.get_intermediate_layers(IMAGES, n=3), (3, 4, 5), strict=True):
            torch.testing.assert_close(one, outputs[index][:, 1:])
    extractor = timm.create_model('vit_tiny_patch16_224', img_size=64, patch_size=8, features_only=True, depth=6)
    randomize(extractor)
    host = [f.shape for f in extractor(IMAGES)]
    with fewtokens.attach(extractor, reducer) as attachment:
        assert [f.shape for f in extractor(IMAGES)] == host and attachment.passes == 1


@torch.no_grad()
def test_hooks_of_others_see_whole_tokens(reducer):
    model = vit()
    seen = {}
    model.blocks[3].register_forward_hook(lambda module, args, output: seen.update(output=output))
    model.blocks[5].register_forward_pre_hook(lambda module, args: seen.update(input=args[0]))
    expected, outputs = walk(model, reducer, IMAGES, (3, 4))
    seen.clear()
    with fewtokens.attach(model, reducer):
        torch.testing.assert_close(model.forward_features(IMAGES), expected)
    torch.testing.assert_close(seen['output'], outputs[3])
    torch.testing.assert_close(seen['input'], outputs[4])


@torch.no_grad()
def test_blocks_walked_by_hand_give_whole_tokens(reducer):
    model = vit()
    expected, outputs = walk(model, reducer, IMAGES, range(6))
    with fewtokens.attach(model, reducer):
        x = model.norm_pre(model._pos_embed(model.patch_embed(IMAGES)))
        for index, block in enumerate(model.blocks):
            x = block(x)
            torch.testing.assert_close(x, outputs[index])
        torch.testing.assert_close(model.norm(x), expected)


def test_checkpointing_trains_as_without(reducer):
    plain, checkpointed = vit(), vit()
    checkpointed.set_grad_checkpointing()
    gradients = []
    for model in (plain, checkpointed):
        model.train()
        with fewtokens.attach(model, reducer):
            for _ in range(2):
                model.zero_grad()
                (model(IMAGES).square().sum()).backward()
                features = model.forward_intermediates(IMAGES, indices=[2, 4], intermediates_only=True)
                sum(f.square().sum() for f in features).backward()
        gradients.append([p.grad for p in model.parameters()])
    for given, expected in zip(*reversed(gradients)):
        torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


def test_reentrant_checkpointing_is_refused():
    model = vit()
    model.train()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        x = model._pos_embed(model.patch_embed(IMAGES))
        with pytest.raises(RuntimeError, match='use_reentrant=False'):
            for block in model.blocks:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=True)


def test_what_leaves_no_grid_is_refused():
    model = vit(patch_drop_rate=0.5)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        model.eval()(IMAGES)
        with pytest.raises(ValueError, match='33 tokens came where 8 x 8 and 1 prefix tokens were due'):
            model.train()(IMAGES)
        with pytest.raises(ValueError, match='attn_mask and is_causal are for all tokens'):
            model.eval().forward_features(IMAGES, attn_mask=torch.zeros(65, 65))
        assert model(IMAGES).shape == (2, 5)


@torch.no_grad()
def test_what_changes_while_attached(reducer):
    """Another input size, and another head. Fewer blocks are refused, unless those that are cut saw whole tokens."""
    model, larger = vit(), torch.randn(2, 3, 96, 80)
    with fewtokens.attach(model, reducer):
        model(IMAGES)
        model.set_input_size((96, 80))
        model.reset_classifier(3)
        given = model(larger)
    with fewtokens.attach(model, reducer):
        assert torch.equal(model(larger), given) and given.shape == (2, 3)
        model.prune_intermediate_layers([4])
        with pytest.raises(RuntimeError, match='the blocks of VisionTransformer are others than those attached to'):
            model.forward_features(larger)
    expected = model.forward_features(larger).shape
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4, until=3)) as attachment:
        model.blocks = model.blocks[:3]
        assert model.forward_features(larger).shape == expected and attachment.passes == 1


@torch.no_grad()
def test_copies_and_mixed_precision(reducer):
    model = vit()
    with fewtokens.attach(model, reducer):
        expected, mixed, half = run_copies_and_half(model, IMAGES)
    spread = (expected - expected.mean()).abs().mean()
    assert (mixed - expected).abs().mean() < spread and (half - expected).abs().mean() < spread


def test_compiled_without_a_break():
    torch._dynamo.reset()
    model = vit(depth=3)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)), torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
        features = torch.compile(model.forward_intermediates, backend='eager')
        for one, other in zip(features(IMAGES)[1], model.forward_intermediates(IMAGES)[1], strict=True):
            torch.testing.assert_close(one, other)
    torch._dynamo.reset()


def test_wrappers_that_stay_go_on_working():
    """accelerate replaces a block's forward, too, and holds on to what was there."""
    model = vit()
    expected = model(IMAGES)
    attachment = fewtokens.attach(model, fewtokens.SharedUpdate(2, 4))
    reduced, calls, previous = model(IMAGES), [], model.blocks[3].forward
    model.blocks[3].forward = lambda *args, **kwargs: calls.append(1) or previous(*args, **kwargs)
    assert torch.equal(model(IMAGES), reduced) and calls
    attachment.remove()
    assert torch.equal(model(IMAGES), expected) and len(calls) == 2
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as again:
        assert torch.equal(model(IMAGES), reduced)
    again.remove()
    assert torch.equal(model(IMAGES), expected)


def test_supported_says_that_any_output_may_be_asked_for():
    assert 'timm VisionTransformer, 6 blocks, 8 x 8 tokens at its nominal input size, 1 prefix tokens' in (
        fewtokens.supported(vit())
    )
    assert 'outputs after any block that is asked for' in fewtokens.supported(vit())


def test_clusters_are_of_the_tokens_that_came():
    model = vit()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, (5, 3))) as attachment, torch.no_grad():
        model(IMAGES)
        x = model.norm_pre(model._pos_embed(model.patch_embed(IMAGES)))
    with torch.no_grad():
        for block in model.blocks[:2]:
            x = block(x)
    assert torch.equal(attachment.cluster_map.flatten(1), merge(x[:, 1:], (8, 8), (5, 3))[1])
