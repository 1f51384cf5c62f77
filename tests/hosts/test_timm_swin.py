"""timm's SwinTransformer v1 and v2 against a literal form, block by block and window by window."""

import pytest
import timm
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
from swin_literal import LiteralBlock, cosine, cosine_table, literal_stages, plain, plain_table
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch.nn import functional as F

import fewtokens
from fewtokens.measure.macs import count_macs

VERSIONS = {'v1': SwinTransformer, 'v2': SwinTransformerV2}
REDUCERS = [fewtokens.Hourglass, fewtokens.SharedUpdate, fewtokens.AvgPool]


def swin(version='v1', window_size=4, img_size=64, **options):
    """Four stages of 2, 4, 2 and 2 blocks, 10 in all."""
    settings = dict(embed_dim=8, depths=(2, 4, 2, 2), num_heads=(1, 2, 2, 4), num_classes=5, drop_path_rate=0.0)
    settings |= dict(window_size=window_size, img_size=img_size, strict_img_size=False)
    return randomize(VERSIONS[version](**{**settings, **options}))


def literal_block(block):
    attn, cosines = block.attn, hasattr(block.attn, 'logit_scale')

    def qkv(x):
        if getattr(attn, 'q_bias', None) is None:
            made = attn.qkv(x)
        else:
            made = attn.qkv(x) + torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
        return made.unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)

    if cosines:
        logits, table = cosine(attn.logit_scale), cosine_table(attn.cpb_mlp, attn.relative_coords_table)
    else:
        logits, table = plain(attn.scale), plain_table(attn.relative_position_bias_table, attn.window_size)
    return LiteralBlock(
        run=lambda image: block(image[None])[0],
        window=block.window_size,
        shifts=block.shift_size,
        qkv=qkv,
        logits=logits,
        table=table,
        proj=attn.proj,
        norm1=block.norm1,
        norm2=block.norm2,
        mlp=block.mlp,
        post=cosines,
    )


@torch.no_grad()
def literal(model, image, reducer):
    """The outputs of a backbone's stages for one image, [1, C, H, W]."""
    reducer = reducer.with_defaults(dict(iters=3, k=25, temperature=100.0))
    stages = [[literal_block(block) for block in stage.blocks] for stage in model.layers]
    outputs = literal_stages(
        model.patch_embed(image[None])[0], stages, lambda i, x: model.layers[i].downsample(x[None])[0], reducer
    )
    return [output.permute(2, 0, 1)[None] for output in outputs]


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('cls', REDUCERS)
@pytest.mark.parametrize(
    'after, window, few, size',
    [
        (1, 4, 2, (64, 64)), (2, 4, (3, 2), (76, 52)), (3, 4, 3, (60, 100)), (5, (6, 4), (4, 3), (100, 68)),
        (8, 3, 2, (200, 168)), (0, 7, 5, (20, 36)),
    ],
)  # fmt: skip
def test_equals_the_literal_form(version, cls, after, window, few, size):
    model = swin(version, window, size, always_partition=after == 2)
    images, reducer, before = torch.randn(2, 3, *size), cls(after, few), snapshot(model)
    expected = [literal(model, image, reducer) for image in images]
    with torch.no_grad():
        host, logits = model.forward_intermediates(images, intermediates_only=True), model(images)
        with fewtokens.attach(model, reducer) as attachment:
            final, given = model.forward_intermediates(images)
            torch.testing.assert_close(model.forward_features(images), final)
            assert model(images).shape == logits.shape and not torch.equal(model(images), logits)
        for level, output in enumerate(given):
            wanted = torch.cat([one[level] for one in expected])
            torch.testing.assert_close(output, wanted, atol=3e-4, rtol=1e-3)
        torch.testing.assert_close(final, model.norm(given[-1].permute(0, 2, 3, 1)))
        assert torch.equal(model(images), logits)
    # Stages before the clustering are untouched, its own and all later ones are not.
    assert [not torch.equal(a, b) for a, b in zip(host, given)] == [after < end for end in (2, 6, 8, 10)]
    height, width = host[sum(after >= end for end in (2, 6, 8, 10))].shape[2:]
    assert attachment.cluster_map.shape == (2, height, width)
    assert attachment.passes == 4 and snapshot(model) == before


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_stages_nest_in_one_stage_of_the_backbone_and_not_across(version):
    model, x = swin(version), torch.randn(2, 3, 72, 56)
    with fewtokens.attach(model, fewtokens.SharedUpdate((2, 4), (3, 2))) as attachment:
        nested = model.forward_intermediates(x, intermediates_only=True)
    assert attachment.token_counts == (63, 24) and attachment.cluster_map.max() < 24
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
        single = model.forward_intermediates(x, intermediates_only=True)
    with fewtokens.attach(model, fewtokens.SharedUpdate((2, 7), (3, 2))) as attachment:
        apart = model.forward_intermediates(x, intermediates_only=True)
    assert torch.equal(single[1], apart[1]) and not torch.equal(single[1], nested[1])
    assert not torch.equal(single[2], apart[2])


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('window, size', [(4, (64, 64)), (4, (76, 52)), ((3, 5), (60, 44)), (7, (16, 40))])
def test_fused_attention_is_exact_and_costs_the_same(version, window, size):
    model = swin(version, window, size)
    x = torch.randn(2, 3, *size)
    expected, macs = model(x), count_macs(model, x)
    with fewtokens.use_sdpa(model) as attachment:
        outputs = model(x)
        assert count_macs(model, x) == macs
    assert len(attachment.places) == 10
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(model(x), expected)


@torch.no_grad()
@pytest.mark.parametrize('cls', REDUCERS)
@pytest.mark.parametrize('name', ['swin_tiny_patch4_window7_224', 'swinv2_tiny_window8_256'])
def test_feature_extractors_get_whole_maps(name, cls):
    options = dict(img_size=64, window_size=4, embed_dim=8, depths=(2, 4, 2, 2), num_heads=(1, 2, 2, 4))
    whole, reducer, x = timm.create_model(name, **options), cls(2, 3), torch.randn(2, 3, 64, 64)
    randomize(whole)
    with fewtokens.attach(whole, reducer):
        expected = whole.forward_intermediates(x, intermediates_only=True)
    for feature_cls in ('list', 'dict', 'getter'):
        extractor = timm.create_model(
            name, features_only=True, feature_cls=feature_cls, out_indices=(0, 1, 2), **options
        )
        extractor.eval()
        own = {key.replace('model.', ''): key for key in extractor.state_dict()}
        state = {key.replace('layers.', 'layers_', 1) if feature_cls != 'getter' else key: value for key, value in
                 whole.state_dict().items()}  # fmt: skip
        extractor.load_state_dict({own[key]: value for key, value in state.items() if key in own})
        with fewtokens.attach(extractor, reducer) as attachment:
            given = extractor(x)
        for one, other in zip(given.values() if isinstance(given, dict) else given, expected[:3], strict=True):
            one = one if one.shape == other.shape else one.permute(0, 3, 1, 2)
            torch.testing.assert_close(one, other)
        assert attachment.passes == 1


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_another_input_size_while_attached(version):
    model, reducer = swin(version), fewtokens.SharedUpdate(2, (3, 2))
    images = torch.randn(1, 3, 88, 120)
    with fewtokens.attach(model, reducer):
        model.set_input_size(img_size=(88, 120), window_size=(6, 5))
        given = model.forward_intermediates(images, intermediates_only=True)
    for one, other in zip(given, literal(model, images[0], reducer), strict=True):
        torch.testing.assert_close(one, other, atol=3e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_nothing_changes_where_nothing_is_reduced(version):
    model, x = swin(version), torch.randn(2, 3, 64, 64)
    host = model(x)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(x), host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@pytest.mark.parametrize('version', VERSIONS)
def test_checkpointing_trains_as_without(version):
    gradients = []
    for checkpointing in (False, True):
        model, x = swin(version), torch.randn(2, 3, 72, 56, generator=torch.Generator().manual_seed(2))
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, fewtokens.SharedUpdate((2, 4), (3, 2))):
            model(x).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    positions = 'relative_position_bias_table' if version == 'v1' else 'cpb_mlp.0.weight'
    assert gradients[0][f'layers.1.blocks.3.attn.{positions}'].abs().sum() > 0
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
@pytest.mark.parametrize('version', VERSIONS)
def test_compiled_without_a_break(version):
    torch._dynamo.reset()
    model, x = swin(version, depths=(2, 2), num_heads=(1, 2)), torch.randn(2, 3, 72, 56)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'reducer, message',
    [
        (fewtokens.Hourglass(2, 5), r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'),
        (fewtokens.Hourglass(10, 2), 'between 0 and 9'),
        (fewtokens.BipartiteMerge(2, 2), 'on no grid'),
    ],
)
def test_settings_that_do_not_fit(reducer, message):
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(swin(), reducer)


def test_supported_says_what_fits():
    text = fewtokens.supported(swin('v2'))
    assert 'timm SwinTransformer and SwinTransformerV2, 10 blocks, 4 x 4 tokens in an attention window' in text
    assert 'outputs after blocks 2, 6, 8, 10' in text
