"""Hugging Face's BEiT against a walk block by block, with positions looked up pair by pair."""

import pytest
import torch
import transformers
from models import randomize, snapshot
from torch.nn import functional as F

import fewtokens
from fewtokens.hosts import find_hosts
from fewtokens.levels import Level

SIZES = dict(
    hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=64, image_size=64, patch_size=8,
    layer_scale_init_value=0.5,
)  # fmt: skip
KINDS = {
    'own': dict(use_relative_position_bias=True),
    'shared': dict(use_shared_relative_position_bias=True),
    'both': dict(use_relative_position_bias=True, use_shared_relative_position_bias=True),
    'absolute': dict(use_absolute_position_embeddings=True),
    'pooled': dict(use_relative_position_bias=True, use_mean_pooling=True),
}
REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0), fewtokens.AvgPool(2, (4, 5)),
    fewtokens.SharedUpdate(2, (4, 3), spread=False), fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)), spread=False),
]  # fmt: skip
WIDE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(4))
GRID = 8, 12


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def reducer(request):
    return request.param


def build(kind='own', suffix='Model', **options):
    settings = {**SIZES, 'use_mean_pooling': False, **KINDS[kind], **options}
    return randomize(getattr(transformers, f'Beit{suffix}')(transformers.BeitConfig(**settings)))


def positions(module, grid):
    """What the table, made for 8 x 8 tokens, adds for each pair of tokens of a grid, the class token first."""
    if module is None:
        return 0
    table = module.relative_position_bias_table
    rows, columns = (2 * side - 1 for side in grid)
    image = table[:-3].T.reshape(1, 4, 15, 15)
    resized = F.interpolate(image, (rows, columns), mode='bilinear')[0]
    to_token, to_class, itself = table[-3:]
    places = [(r, c) for r in range(grid[0]) for c in range(grid[1])]
    bias = torch.empty(4, 1 + len(places), 1 + len(places))
    bias[:, 0, :], bias[:, :, 0], bias[:, 0, 0] = to_token[:, None], to_class[:, None], itself
    for i, (r, c) in enumerate(places, 1):
        for j, (s, d) in enumerate(places, 1):
            bias[:, i, j] = resized[:, r - s + grid[0] - 1, c - d + grid[1] - 1]
    return bias


def run(block, x, bias):
    own, normed = block.attention, block.layernorm_before(x)
    query, key, value = (
        layer(normed).unflatten(2, (4, 8)).transpose(1, 2) for layer in (own.q_proj, own.k_proj, own.v_proj)
    )
    weights = (query @ key.transpose(2, 3) / 8**0.5 + bias).softmax(-1)
    x = x + block.lambda_1 * own.o_proj((weights @ value).transpose(1, 2).flatten(2))
    return x + block.lambda_2 * block.mlp(block.layernorm_after(x))


@torch.no_grad()
def walk(model, reducer):
    """(normed output, what comes into the first block and out of each), whole."""
    x, grid, sizes, records = model.embeddings(WIDE), GRID, None, []
    states = [x]

    def whole(tokens):
        head, tokens = tokens[:, :1], tokens[:, 1:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    shared = positions(model.shared_position_bias, grid)
    for index, block in enumerate(model.layers):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, 1:], grid, sizes)
                x, grid, sizes = torch.cat([x[:, :1], reduced.tokens], dim=1), reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
                shared = positions(model.shared_position_bias, grid)
        counted = 0 if sizes is None else F.pad(sizes.log(), (1, 0))[:, None, None]
        x = run(block, x, positions(block.relative_position_bias, grid) + shared + counted)
        states.append(whole(x))
    return (model.layernorm(whole(x)) if reducer.restores == 'update' else whole(model.layernorm(x))), states


@torch.no_grad()
@pytest.mark.parametrize('attention', ['sdpa', 'eager'])
@pytest.mark.parametrize('kind', KINDS)
def test_forward_and_hidden_states_equal_the_walk(kind, attention, reducer):
    model = build(kind, attn_implementation=attention)
    host, before = model(WIDE, output_hidden_states=True), snapshot(model)
    expected, states = walk(model, reducer)
    with fewtokens.attach(model, reducer) as attachment:
        assert attachment.host.family == 'transformers BEiT'
        output = model(WIDE, output_hidden_states=True)
        torch.testing.assert_close(output.last_hidden_state, expected, rtol=1e-4, atol=1e-4)
        for one, other in zip(output.hidden_states, states, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(WIDE).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(expected, host.last_hidden_state, atol=1e-3)
        assert (attachment.passes, attachment.skipped) == (2, 0) and attachment.cluster_map.shape == (2, *GRID)
    assert snapshot(model) == before
    assert torch.equal(model(WIDE).last_hidden_state, host.last_hidden_state)


@torch.no_grad()
def test_a_backbone_is_one_host_and_restores_what_it_gives(reducer, monkeypatch):
    model = build('both', 'Backbone', out_features=['stage2', 'stage5', 'stage6'], reshape_hidden_states=True)
    (host,) = find_hosts(model)
    assert host.path == '' and len(host.blocks) == 6
    _, states = walk(model.beit, reducer)
    calls, restore = [], Level.restore
    monkeypatch.setattr(Level, 'restore', lambda level, tokens: calls.append(1) or restore(level, tokens))
    with fewtokens.attach(model, reducer) as attachment:
        maps = model(WIDE).feature_maps
        assert attachment.passes == 1
        # Each block's that is given, and after the last norm.
        assert len(calls) <= 4 * len(reducer.stages())
    for one, index in zip(maps, (2, 5, 6), strict=True):
        expected = states[index][:, 1:].transpose(1, 2).unflatten(2, GRID)
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('suffix', ['ForImageClassification', 'ForSemanticSegmentation', 'ForMaskedImageModeling'])
def test_models_around_it(suffix):
    options = dict(out_indices=[1, 2, 4, 6]) if 'Semantic' in suffix else {}
    model = build('own', suffix, **options)
    (host,) = find_hosts(model)
    images = torch.randn(2, 3, 64, 64)
    expected = model(images).logits
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        output = model(images).logits
    assert attachment.passes == 1 and output.shape == expected.shape and output.isfinite().all()
    assert not torch.allclose(output, expected, atol=1e-4)
    # As many clusters as tokens are none fewer.
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 8)), pytest.warns(UserWarning, match='too few'):
        assert torch.equal(model(images).logits, expected)


def test_gradients_reach_tables_with_and_without_checkpointing():
    gradients = []
    for checkpointed in (False, True):
        model = build('both')
        if checkpointed:
            model.gradient_checkpointing_enable(dict(use_reentrant=False))
        model.train()
        with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
            model(WIDE).last_hidden_state.square().mean().backward()
        tables = [model.shared_position_bias, model.layers[3].relative_position_bias]
        gradients.append([table.relative_position_bias_table.grad for table in tables])
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_what_does_not_fit_is_named():
    model = build()
    with pytest.raises(ValueError, match='BipartiteMerge leaves tokens on no grid'):
        fewtokens.attach(model, fewtokens.BipartiteMerge(2, 6))
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        with pytest.raises(ValueError, match='attention_mask is for all tokens'):
            model(WIDE, attention_mask=torch.ones(2, 97))
        with pytest.raises(ValueError, match='output_attentions=True'):
            model(WIDE, output_attentions=True)


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model = build('both', num_hidden_layers=3)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, (4, 3))):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        expected = model(WIDE).last_hidden_state
        torch.testing.assert_close(compiled(WIDE).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
