"""timm's SwinTransformer v1 and v2 against a literal form, block by block and window by window."""

import pytest
import spread
import timm
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
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


def logits_and_values(attn, x):
    """Of the tokens of a window [N, C]."""
    query, key, value = (
        attn.qkv(x) if getattr(attn, 'q_bias', None) is None
        else attn.qkv(x) + torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
    ).unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)  # fmt: skip
    if hasattr(attn, 'logit_scale'):
        cosines = F.cosine_similarity(query[:, :, None], key[:, None], dim=-1)
        return cosines * attn.logit_scale.clamp(max=torch.tensor(100.0).log()).exp(), value
    return query @ key.transpose(1, 2) * attn.scale, value


def literal_attention(block, image, few, log_sizes):
    """Attention of one image of whole windows [H, W, C], window by window."""
    attn, rows, columns = block.attn, 2 * few[0] - 1, 2 * few[1] - 1
    own = [2 * side - 1 for side in attn.window_size]
    if hasattr(attn, 'cpb_mlp'):
        table = 16 * torch.sigmoid(attn.cpb_mlp(attn.relative_coords_table)[0]).permute(2, 0, 1)
    else:
        table = attn.relative_position_bias_table.T.unflatten(1, own)
    table = F.interpolate(table[None], (rows, columns), mode='bilinear', align_corners=False)[0]
    down = torch.arange(few[0])[:, None] - torch.arange(few[0]) + few[0] - 1
    across = torch.arange(few[1])[:, None] - torch.arange(few[1]) + few[1] - 1
    bias = table[:, down[:, None, :, None], across[None, :, None, :]].flatten(3).flatten(1, 2)
    shift = [side // 2 if shifts else 0 for side, shifts in zip(few, block.shift_size)]
    back = [-side for side in shift]
    rolled, sizes = image.roll(back, (0, 1)), log_sizes.roll(back, (0, 1))
    wrapped = torch.zeros(image.shape[:2])
    wrapped[image.shape[0] - shift[0] :] += 2
    wrapped[:, image.shape[1] - shift[1] :] += 1
    out = torch.zeros_like(rolled)
    for r in range(0, image.shape[0], few[0]):
        for c in range(0, image.shape[1], few[1]):
            cut = (slice(r, r + few[0]), slice(c, c + few[1]))
            region = wrapped[cut].flatten()
            logits, value = logits_and_values(attn, rolled[cut].flatten(0, 1))
            logits = logits + bias + sizes[cut].flatten() - 100 * (region[:, None] != region)
            out[cut] = attn.proj((logits.softmax(-1) @ value).transpose(0, 1).flatten(1)).unflatten(0, few)
    return out.roll(shift, (0, 1))


def literal_block(block, image, few, log_sizes, apart):
    if isinstance(block, timm.models.swin_transformer_v2.SwinTransformerV2Block):
        image = image + block.norm1(literal_attention(block, image, few, log_sizes))
        return image + block.norm2(block.mlp(image))
    if apart is None:
        image = image + literal_attention(block, block.norm1(image), few, log_sizes)
        return image + block.mlp(block.norm2(image))
    share = spread.shares(image, apart)
    image = image + literal_attention(block, spread.norm(block.norm1, image, share), few, log_sizes)
    return image + spread.mlp(block, image, share)


def literal_stage(stage, image, first, reducer):
    """One image [H, W, C] through a stage whose first block is number `first` of the backbone."""
    size, few, records = image.shape[:2], reducer.stages()[0].grid, None
    for number, block in enumerate(stage.blocks, first):
        if number == reducer.stages()[0].after:
            window = block.window_size
            counts = [-(-side // cell) for side, cell in zip(size, window)]
            padded = [count * cell for count, cell in zip(counts, window)]
            before = F.pad(image, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
            image = torch.zeros(counts[0] * few[0], counts[1] * few[1], image.shape[2])
            log_sizes, apart, records = torch.zeros(image.shape[:2]), torch.zeros(image.shape[:2]), []
            for r in range(counts[0]):
                for c in range(counts[1]):
                    own = tuple(slice(n * cell, n * cell + cell) for n, cell in zip((r, c), window))
                    cut = tuple(slice(n * side, n * side + side) for n, side in zip((r, c), few))
                    reduced = reducer.stages()[0].reduce(before[own].flatten(0, 1)[None], window)
                    image[cut] = reduced.tokens[0].unflatten(0, few)
                    if reducer.size_bias and reduced.sizes is not None:
                        log_sizes[cut] = reduced.sizes[0].log().unflatten(0, few)
                    if reduced.spreads is not None:
                        apart[cut] = reduced.spreads[0].unflatten(0, few)
                    records.append((own, cut, reduced.record))
            apart = None if reduced.spreads is None else apart
        image = block(image[None])[0] if records is None else literal_block(block, image, few, log_sizes, apart)
    if records is None:
        return image
    whole = torch.zeros(*padded, image.shape[2])
    for own, cut, record in records:
        restored = reducer.stages()[0].restore(image[cut].flatten(0, 1)[None], record)[0]
        whole[own] = restored.unflatten(0, window)
    return whole[: size[0], : size[1]]


@torch.no_grad()
def literal(model, image, reducer):
    """The outputs of a backbone's stages for one image, [1, C, H, W]."""
    reducer = reducer.with_defaults(dict(iters=3, k=25, temperature=100.0))
    tokens, outputs, first = model.patch_embed(image[None]), [], 0
    for stage in model.layers:
        tokens = literal_stage(stage, stage.downsample(tokens)[0], first, reducer)[None]
        outputs.append(tokens.permute(0, 3, 1, 2))
        first += len(stage.blocks)
    return outputs


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
