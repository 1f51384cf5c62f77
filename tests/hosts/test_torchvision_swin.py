"""torchvision's SwinTransformer v1 and v2 against a literal form, block by block and window by window."""

from types import SimpleNamespace

import pytest
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
from swin_literal import LiteralBlock, cosine, cosine_table, literal_stages, plain, plain_table
from torch.nn import functional as F
from torchvision.models import SwinTransformer, feature_extraction
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

import fewtokens
from fewtokens.measure.agreement import final_tokens
from fewtokens.measure.macs import count_macs, forward

VERSIONS = {'v1': {}, 'v2': dict(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)}
CASES = {
    'in a stage': (fewtokens.SharedUpdate(1, 2), [4, 4], (64, 64)),
    'at its start': (fewtokens.SharedUpdate(2, (3, 2)), [4, 4], (76, 52)),
    'to published settings': (fewtokens.Hourglass(5, (4, 3)), [6, 4], (100, 68)),
    'in the last': (fewtokens.AvgPool(6, 2), [3, 3], (100, 76)),
    'fewer than a window': (fewtokens.SharedUpdate(0, 5), [7, 7], (20, 36)),
}


def swin(version='v1', window_size=(4, 4), **options):
    """Three stages of 2, 4 and 2 blocks."""
    settings = dict(patch_size=[4, 4], embed_dim=8, depths=[2, 4, 2], num_heads=[1, 2, 4], num_classes=5)
    settings |= dict(window_size=list(window_size), stochastic_depth_prob=0.0)
    return randomize(SwinTransformer(**{**settings, **VERSIONS[version], **options}))


def literal_block(block, size):
    """Of a stage whose image is of that size."""
    attn, cosines = block.attn, hasattr(block.attn, 'logit_scale')

    def qkv(x):
        query, key, value = attn.qkv(x).unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
        if cosines:
            key = key - attn.qkv.bias.unflatten(0, (3, attn.num_heads, 1, -1))[1]
        return query, key, value

    if cosines:
        logits, table = cosine(attn.logit_scale), cosine_table(attn.cpb_mlp, attn.relative_coords_table)
    else:
        scale = (attn.qkv.in_features // attn.num_heads) ** -0.5
        logits, table = plain(scale), plain_table(attn.relative_position_bias_table, attn.window_size)
    return LiteralBlock(
        run=lambda image: block(image[None])[0],
        window=tuple(attn.window_size),
        shifts=[shift > 0 and side > cell for shift, side, cell in zip(attn.shift_size, size, attn.window_size)],
        qkv=qkv,
        logits=logits,
        table=table,
        proj=attn.proj,
        norm1=block.norm1,
        norm2=block.norm2,
        mlp=SimpleNamespace(fc1=block.mlp[0], act=block.mlp[1], norm=lambda x: x, fc2=block.mlp[3]),
        post=cosines,
    )


@torch.no_grad()
def literal(model, image, reducer):
    """What comes out of each stage for one image, [1, H, W, C]."""
    reducer = reducer.with_defaults(dict(iters=3, k=25))
    tokens = model.features[0](image[None])[0]
    sizes, stages = [tokens.shape[:2]], model.features[1::2]
    for _ in stages[1:]:
        sizes.append([(side + 1) // 2 for side in sizes[-1]])
    blocks = [[literal_block(block, size) for block in stage] for stage, size in zip(stages, sizes)]
    outputs = literal_stages(tokens, blocks, lambda i, x: model.features[2 * i](x[None])[0], reducer)
    return [output[None] for output in outputs]


def run(model, images):
    """Logits, and what comes out of each stage."""
    seen = []
    hooks = [
        stage.register_forward_hook(lambda module, args, output: seen.append(output)) for stage in model.features[1::2]
    ]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    return logits, seen


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('case', CASES)
def test_equals_the_literal_form(version, case):
    reducer, window, size = CASES[case]
    model, images = swin(version, window), torch.randn(2, 3, *size)
    before, (logits, host) = snapshot(model), run(model, images)
    expected = list(map(torch.cat, zip(*(literal(model, one, reducer) for one in images))))
    with fewtokens.attach(model, reducer) as attachment:
        given_logits, given = run(model, images)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, atol=3e-4, rtol=1e-3)
    pooled = model.norm(expected[-1]).mean((1, 2))
    torch.testing.assert_close(given_logits, model.head(pooled), atol=3e-4, rtol=1e-3)
    assert [not torch.equal(*both) for both in zip(host, given)] == [reducer.stages()[0].after < n for n in (2, 6, 8)]
    assert attachment.passes == 1 and attachment.cluster_map.shape[0] == 2
    assert torch.equal(model(images), logits) and snapshot(model) == before


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize(
    'window, size', [((4, 4), (64, 64)), ((4, 4), (76, 52)), ((3, 5), (60, 44)), ((7, 7), (16, 40))]
)
def test_fused_attention_is_exact_and_costs_the_same(version, window, size):
    model, images = swin(version, window), torch.randn(2, 3, *size)
    expected, macs = model(images), count_macs(model, images)
    with fewtokens.use_sdpa(model) as attachment:
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-4)
        assert count_macs(model, images) == macs
    assert len(attachment.places) == 8
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize('version', VERSIONS)
def test_gradients_are_those_of_unfused_attention(version):
    gradients, images = [], torch.randn(2, 3, 76, 52, generator=torch.Generator().manual_seed(2))
    for fused in (False, True):
        model = swin(version).train()
        with fewtokens.attach(model, fewtokens.SharedUpdate((2, 4), (3, 2))):
            if fused:
                fewtokens.use_sdpa(model)
            model(images).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    positions = 'relative_position_bias_table' if version == 'v1' else 'cpb_mlp.0.weight'
    assert gradients[0][f'features.3.3.attn.{positions}'].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_copies_and_mixed_precision(version):
    model, x = swin(version), torch.randn(2, 3, 72, 56)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
        expected, mixed, half = run_copies_and_half(model, x)
    for one in (mixed, half):
        assert F.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model, x = swin('v2', depths=[2], num_heads=[1]), torch.randn(2, 3, 40, 56)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced():
    model, x = swin(), torch.randn(2, 3, 64, 64)
    host = model(x)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)), pytest.warns(UserWarning, match='too few'):
        assert torch.equal(model(x), host)


def test_what_is_refused():
    model = swin()
    with pytest.raises(ValueError, match=r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'):
        fewtokens.attach(model, fewtokens.Hourglass(2, 5))
    with pytest.raises(ValueError, match='on no grid'):
        fewtokens.attach(model, fewtokens.BipartiteMerge(2, 2))
    with fewtokens.attach(model, fewtokens.Hourglass(2, 3)), pytest.raises(ValueError, match='torch.fx.*hooks'):
        feature_extraction.create_feature_extractor(model, ['features.3'])
    # Its blocks are taken apart.
    extractor = feature_extraction.create_feature_extractor(model, ['features.3'])
    with pytest.raises(ValueError, match='no known backbone'):
        fewtokens.attach(extractor, fewtokens.Hourglass(2, 3))


def test_tokens_that_are_compared_are_the_last_blocks():
    model, images = swin(), torch.randn(2, 3, 76, 52)
    (host,) = fewtokens.hosts.find_hosts(model)
    (tokens,) = final_tokens(host, model, images, forward)
    with torch.no_grad():
        assert torch.equal(tokens, model.features(images).flatten(1, 2))


def test_supported_says_what_fits():
    text = fewtokens.supported(swin('v2'))
    assert 'torchvision SwinTransformer v1 and v2, 8 blocks, 4 x 4 tokens in an attention window' in text
    assert '0 prefix tokens' in text
