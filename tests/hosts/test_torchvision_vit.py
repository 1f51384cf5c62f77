"""torchvision's VisionTransformer against a walk through its blocks, and the published rows of the SWAG models."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import spread
import torch
import torchvision
from copies import run_copies_and_half
from models import randomize, snapshot
from torch.nn import functional as F
from torchvision.models import VisionTransformer, feature_extraction

import fewtokens
from fewtokens.measure.macs import count_macs

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
PAGE = Path(__file__).parents[2] / 'docs/torchvision.md'
# Model, clustered before that block, grid, published GMACs.
SWAG = [
    ('vit_l_16', None, None, 364.8), ('vit_l_16', 12, 23, 275.8), ('vit_l_16', 6, 23, 228.5),
    ('vit_l_16', 8, 16, 179.0), ('vit_h_14', None, None, 1023.2), ('vit_h_14', 10, 26, 652.4),
    ('vit_h_14', 4, 25, 514.1), ('vit_h_14', 8, 18, 422.7),
]  # fmt: skip


def vit(**options):
    """Six blocks over 8 x 8 tokens and a class token."""
    settings = dict(image_size=64, patch_size=8, num_layers=6, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5)
    return randomize(VisionTransformer(**{**settings, **options}))


def literal_block(block, x, log_sizes, apart):
    own, share = block.self_attention, spread.shares(x, apart)
    qkv = F.linear(spread.norm(block.ln_1, x, share), own.in_proj_weight, own.in_proj_bias)
    query, key, value = qkv.unflatten(2, (3, own.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(2, 3) / own.head_dim**0.5 + log_sizes[:, None, None]).softmax(-1)
    x = x + own.out_proj((weights @ value).transpose(1, 2).flatten(2))
    mlp = SimpleNamespace(fc1=block.mlp[0], act=block.mlp[1], norm=lambda x: x, fc2=block.mlp[3])
    return x + spread.mlp(SimpleNamespace(norm2=block.ln_2, mlp=mlp), x, share)


@torch.no_grad()
def walk(model, reducer):
    """The normed tokens, and what comes out of each block."""
    reducer = reducer.with_defaults(dict(iters=5, k=20))
    tokens = model.conv_proj(IMAGES).flatten(2).transpose(1, 2)
    x = torch.cat([model.class_token.expand(2, -1, -1), tokens], dim=1) + model.encoder.pos_embedding
    grid, sizes, apart, records, states = (8, 8), None, None, [], []

    def whole(tokens):
        head, tokens = tokens[:, :1], tokens[:, 1:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    for index, block in enumerate(model.encoder.layers):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, 1:], grid, sizes)
                x = torch.cat([x[:, :1], reduced.tokens], dim=1)
                grid, sizes = reduced.grid, reduced.sizes
                apart = torch.zeros(x.shape[:2]) if reduced.spreads is None else F.pad(reduced.spreads, (1, 0))
                records.append((stage, reduced.record))
        if records:
            counted = sizes is not None and reducer.size_bias
            x = literal_block(block, x, F.pad(sizes.log(), (1, 0)) if counted else torch.zeros(x.shape[:2]), apart)
        else:
            x = block(x)
        states.append(whole(x))
    norm = model.encoder.ln
    return (norm(whole(x)) if reducer.restores == 'update' else whole(norm(x))), states


@torch.no_grad()
@pytest.mark.parametrize(
    'reducer',
    [
        fewtokens.Hourglass(2, 5), fewtokens.SharedUpdate(2, (4, 3)), fewtokens.AvgPool(0, 4),
        fewtokens.SharedUpdate((1, 4), ((6, 5), (3, 3)), spread=False), fewtokens.BipartiteMerge(5, 20),
    ],
)  # fmt: skip
def test_equals_the_walk(reducer):
    model, seen = vit(), []
    before, host = snapshot(model), model(IMAGES)
    expected, states = walk(model, reducer)
    with fewtokens.attach(model, reducer) as attachment:
        logits = model(IMAGES)
        hooks = [model.encoder.register_forward_hook(lambda module, args, output: seen.append(output))]
        hooks += [
            block.register_forward_hook(lambda module, args, output: seen.append(output))
            for block in model.encoder.layers
        ]
        torch.testing.assert_close(model(IMAGES), logits)
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(seen[-1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, model.heads(expected[:, 0]), atol=1e-4, rtol=1e-4)
    for one, other in zip(seen[:-1], states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert attachment.passes == 2 and not torch.equal(logits, host)
    assert torch.equal(model(IMAGES), host) and snapshot(model) == before


@torch.no_grad()
def test_the_encoder_alone_gives_whole_tokens_and_logits_rest_on_the_class_token():
    model, reducer = vit(), fewtokens.Hourglass(2, 4, temperature=1.0)
    expected, _ = walk(model, reducer)
    with fewtokens.attach(model, reducer):
        logits, tokens = model(IMAGES), model._process_input(IMAGES)
        given = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), tokens], dim=1))
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    # How the others are restored makes no difference to it, as where they aren't.
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4, temperature=1.0, k=1, normalize='l2')):
        assert torch.equal(model(IMAGES), logits)


@torch.no_grad()
def test_fused_attention_is_exact_and_is_what_runs():
    model = vit()
    expected, macs = model(IMAGES), count_macs(model, IMAGES)
    reducer = fewtokens.SharedUpdate((1, 3), (5, 3))
    with fewtokens.attach(model, reducer):
        reduced = model(IMAGES)
    with torch.profiler.profile() as profile:
        model(IMAGES)
    assert 'aten::_native_multi_head_attention' in {event.name for event in profile.events()}
    with fewtokens.use_sdpa(model) as attachment:
        assert len(attachment.places) == 6
        with torch.profiler.profile() as profile:
            torch.testing.assert_close(model(IMAGES), expected, atol=1e-5, rtol=1e-4)
        names = {event.name for event in profile.events()}
        assert 'aten::scaled_dot_product_attention' in names and 'aten::_native_multi_head_attention' not in names
        assert count_macs(model, IMAGES) == macs
        with fewtokens.attach(model, reducer):
            torch.testing.assert_close(model(IMAGES), reduced, atol=1e-5, rtol=1e-4)
        attention, x = model.encoder.layers[0].self_attention, torch.randn(2, 7, 32)
        assert attention(x, x, x)[1].shape == (2, 7, 7)  # weights that are asked for are made
    assert torch.equal(model(IMAGES), expected)


def test_trains_with_and_without_fused_attention():
    gradients = []
    for fused in (False, True):
        model = vit().train()
        with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
            if fused:
                fewtokens.use_sdpa(model)
            model(IMAGES).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0]['encoder.layers.encoder_layer_3.self_attention.in_proj_weight'].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_copies_and_mixed_precision():
    model = vit()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        expected, mixed, half = run_copies_and_half(model, IMAGES)
    for one in (mixed, half):
        assert F.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model = vit(num_layers=3)
    with fewtokens.use_sdpa(model), fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
    torch._dynamo.reset()


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced():
    model = vit()
    host = model(IMAGES)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 8)), pytest.warns(UserWarning, match='too few'):
        assert torch.equal(model(IMAGES), host)


def test_attached_models_are_not_taken_apart():
    model = vit()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
        with pytest.raises(ValueError, match='torch.fx.*: register forward hooks'):
            feature_extraction.create_feature_extractor(model, ['encoder.ln'])


def test_supported_says_what_fits():
    text = fewtokens.supported(vit())
    assert 'torchvision VisionTransformer, 6 blocks, 8 x 8 tokens at its nominal input size, 1 prefix tokens' in text


@pytest.mark.parametrize('name, after, grid, published', SWAG)
def test_published_rows_of_swag(name, after, grid, published):
    side = 512 if name == 'vit_l_16' else 518
    with torch.device('meta'):
        model = getattr(torchvision.models, name)(image_size=side).eval()
        images = torch.empty(1, 3, side, side)
    if after is None:
        macs = count_macs(model, images)
    else:
        row = f'Hourglass(after={after}, grid={grid}, iters=5, temperature=1.0)'
        assert f'| {name} | `{row}` | {published} |' in PAGE.read_text()
        with fewtokens.attach(model, fewtokens.Hourglass(after, grid, iters=5, temperature=1.0)):
            macs = count_macs(model, images)
    assert macs / 1e9 == pytest.approx(published, rel=0.03)


def test_the_page_says_how_to_evaluate(monkeypatch, capsys):
    data = [(image, label) for label, image in enumerate(IMAGES)]
    model = vit()
    monkeypatch.setattr(torchvision.models, 'vit_l_16', lambda weights: model)
    monkeypatch.setattr(torchvision.datasets, 'ImageNet', lambda *args, **options: data)
    (code,) = re.findall(r'```py\n(.*?)```', PAGE.read_text(), re.DOTALL)
    exec(code.replace('after=12, grid=23', 'after=2, grid=4'), {})
    with torch.no_grad(), fewtokens.attach(model, fewtokens.Hourglass(2, 4, iters=5, temperature=1.0)):
        right = (model(IMAGES).argmax(1) == torch.arange(2)).float().mean()
    assert capsys.readouterr().out == f'{100 * right:.2f} % top-1\n'
