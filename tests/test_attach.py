import copy
import pickle
import re
import warnings

import pytest
import torch
from literal import merge
from models import IMAGES, beit, outputs, segmenter, snapshot, vit
from torch.nn import functional as F

import fewtokens
from fewtokens.ops import dense

REDUCERS = [
    fewtokens.Hourglass(2, 4),
    fewtokens.SharedUpdate(2, (5, 3)),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3))),
    fewtokens.AvgPool(2, (4, 5)),
    fewtokens.BipartiteMerge((1, 2, 4), 6),
    fewtokens.GradualUpdate((1, 3), 0.3),
]
HOSTS = {
    'vit': lambda: vit(out_indices=(1, 3, 5), final_norm=True),
    'vit without class token': lambda: vit(with_cls_token=False, final_norm=True),
    'vit with the input as an output': lambda: vit(out_origin=True, out_indices=(2, 5)),
    'beit': lambda: beit(out_indices=(2, 5), final_norm=True),
    'mae': lambda: beit(kind='MAE', out_indices=(5,)),
    'segmenter': segmenter,
}


@pytest.mark.parametrize('make', HOSTS.values(), ids=HOSTS.keys())
@pytest.mark.parametrize('reducer', REDUCERS, ids=lambda r: type(r).__name__)
def test_attach_and_remove_leave_no_trace(make, reducer):
    model = make()
    if not reducer.keeps_grid and 'relative' in fewtokens.supported(model):
        with pytest.raises(ValueError, match='relative positions'):
            fewtokens.attach(model, reducer)
        return
    before, state, expected = snapshot(model), copy.deepcopy(model.state_dict()), outputs(model)
    with fewtokens.attach(model, reducer) as attachment:
        reduced = outputs(model)
        assert reduced.shape == expected.shape and reduced.isfinite().all()
        assert not torch.allclose(reduced, expected, atol=1e-4)
        assert attachment.passes == 1 and attachment.skipped == 0
        assert model.state_dict().keys() == state.keys()
        assert type(reducer).__name__ in attachment.summary()
    assert snapshot(model) == before
    assert torch.equal(outputs(model), expected)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def block_forward(block, x, log_sizes=None, bias=None):
    """A block of mmseg's ViT or BEiT, step by step."""

    def attend(x):
        attn = block.attn
        if hasattr(attn, 'qkv'):
            extra = None if attn.bias is True else torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
            qkv = attn.qkv(x) if extra is None else F.linear(x, attn.qkv.weight, extra)
            proj = attn.proj
        else:
            qkv = F.linear(x, attn.attn.in_proj_weight, attn.attn.in_proj_bias)
            proj = attn.attn.out_proj
        q, k, v = (part.unflatten(2, (4, 8)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
        logits = q @ k.transpose(2, 3) / 8**0.5
        logits = logits if log_sizes is None else logits + log_sizes[:, None, None]
        logits = logits if bias is None else logits + bias
        return proj((logits.softmax(3) @ v).transpose(1, 2).flatten(2))

    gammas = (block.gamma_1, block.gamma_2) if hasattr(block, 'gamma_1') else (1, 1)
    first, second = (block.norm1, block.norm2)
    x = x + gammas[0] * attend(first(x))
    hidden = block.ffn.layers(second(x))
    return x + gammas[1] * hidden


def embed(model, images):
    x, grid = model.patch_embed(images)
    x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
    return (x + model.pos_embed if hasattr(model, 'pos_embed') else x), grid


def as_map(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, grid)


@torch.no_grad()
@pytest.mark.parametrize(
    'images, clusters',
    [(IMAGES, (4, 4)), (torch.randn(2, 3, 24, 160), (4, 5))],
    ids=['square', 'more rows than tokens'],
)
def test_hourglass_equals_the_steps_written_out(images, clusters):
    model = vit(tuple(images.shape[2:]), out_indices=(1, 3, 5), final_norm=True)
    x, grid = embed(model, images)
    expected = []
    for i, block in enumerate(model.layers):
        if i == 2:
            before = x[:, 1:]
            centers, _ = dense.cluster_tokens(before, grid, clusters, 3, 5, 20.0)
            x = torch.cat([x[:, :1], centers], dim=1)
        x = block_forward(block, x)
        out = model.norm1(x) if i == 5 else x
        if i >= 2 and i in (3, 5):
            expected.append(dense.reconstruct_tokens(out[:, 1:], before, centers, 7, 20.0))
        elif i == 1:
            expected.append(out[:, 1:])
    with fewtokens.attach(model, fewtokens.Hourglass(2, clusters, iters=3, k=7, temperature=20.0)):
        for given, wanted in zip(model(images), expected, strict=True):
            torch.testing.assert_close(given, as_map(wanted, grid), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('size_bias', [True, False])
def test_shared_update_equals_the_steps_written_out(size_bias):
    model = vit(out_indices=(1, 3, 5), final_norm=True)
    x, grid = embed(model, IMAGES)
    expected, records, sizes, log_sizes = [], [], None, None

    def restore(z):
        for before, centers, labels in reversed(records):
            z = before + (z - centers).gather(1, labels[..., None].expand(-1, -1, 32))
        return z

    for i, block in enumerate(model.layers):
        if i in (1, 4):
            clusters = (6, 5) if i == 1 else (3, 3)
            before = x[:, 1:]
            centers, labels, sizes = merge(before, grid if i == 1 else (6, 5), clusters, sizes=sizes)
            records.append((before, centers, labels))
            x = torch.cat([x[:, :1], centers], dim=1)
            log_sizes = F.pad(sizes.log(), (1, 0)) if size_bias else None
        x = block_forward(block, x, log_sizes)
        if i == 1 or i == 3:
            expected.append(restore(x[:, 1:]))
        elif i == 5:
            expected.append(model.norm1(restore(x[:, 1:])))
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 4), ((6, 5), (3, 3)), size_bias=size_bias, spread=False)):
        for given, wanted in zip(model(IMAGES), expected, strict=True):
            torch.testing.assert_close(given, as_map(wanted, grid), rtol=1e-4, atol=1e-4)


def bias_of(attn, table, grid):
    """[1, heads, 1 + N, 1 + N] from a table of relative positions, entry by entry."""
    n = grid[0] * grid[1]
    bias = torch.zeros(table.shape[1], n + 1, n + 1)
    for i in range(n):
        for j in range(n):
            row = i // grid[1] - j // grid[1] + grid[0] - 1
            column = i % grid[1] - j % grid[1] + grid[1] - 1
            bias[:, i + 1, j + 1] = table[row * (2 * grid[1] - 1) + column]
    bias[:, 0, 1:], bias[:, 1:, 0], bias[:, 0, 0] = table[-3, :, None], table[-2, :, None], table[-1]
    return bias[None]


@torch.no_grad()
@pytest.mark.parametrize('kind', ['BEiT', 'MAE'])
def test_relative_positions_equal_the_steps_written_out(kind):
    model = beit(kind=kind, out_indices=(5,), final_norm=True)
    x, grid = embed(model, IMAGES)
    for i, block in enumerate(model.layers):
        table, size, log_sizes = block.attn.relative_position_bias_table, grid, None
        if i == 2:
            before = x[:, 1:]
            centers, labels, sizes = merge(before, grid, (5, 4))
            x = torch.cat([x[:, :1], centers], dim=1)
        if i >= 2:
            image = table[:-3].T.reshape(1, 4, 15, 15)
            resized = F.interpolate(image, (9, 7), mode='bilinear', align_corners=False)[0].flatten(1).T
            table, size, log_sizes = torch.cat([resized, table[-3:]]), (5, 4), F.pad(sizes.log(), (1, 0))
        x = block_forward(block, x, log_sizes, bias_of(block.attn, table, size))
    update = (x[:, 1:] - centers).gather(1, labels[..., None].expand(-1, -1, 32))
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, (5, 4), spread=False)):
        torch.testing.assert_close(model(IMAGES)[0], as_map(model.norm1(before + update), grid), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_head_runs_on_the_centers():
    model = segmenter()
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4, temperature=20.0)) as attachment:
        seen = []
        handle = model.decode_head.dec_proj.register_forward_hook(
            lambda module, args, output: seen.append(output.shape[1])
        )
        classes = model(IMAGES, mode='tensor')
        features = model.extract_feat(IMAGES)[-1]
        handle.remove()
        assert seen == [16] and classes.shape == (2, 5, 8, 8) and 'decode_head' in attachment.summary()
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4, temperature=20.0, until='backbone')):
        assert torch.equal(model.extract_feat(IMAGES)[-1], features)
        assert not torch.allclose(model(IMAGES, mode='tensor'), classes, atol=1e-4)


@torch.no_grad()
def test_head_gives_the_class_map_of_the_centers():
    model = segmenter()
    with fewtokens.attach(model, fewtokens.AvgPool(2, 4)):
        classes = model(IMAGES, mode='tensor')
    x, grid = embed(model.backbone, IMAGES)
    for i, block in enumerate(model.backbone.layers):
        x = torch.cat([x[:, :1], dense.pool_tokens(x[:, 1:], grid, (4, 4))], dim=1) if i == 2 else x
        x = block_forward(block, x)
    few = as_map(model.backbone.norm1(x)[:, 1:], (4, 4))
    expected = F.interpolate(model.decode_head([few]), (8, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(classes, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_head_may_be_given_features_of_an_earlier_pass():
    model = segmenter()
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4, temperature=20.0)):
        first, second = IMAGES[:1], IMAGES[1:]
        features = model.extract_feat(first)
        alone = model.decode_head.forward(features)
        model.extract_feat(second)
        given = model.decode_head.forward(features)
        changed = model.decode_head.forward([2 * x for x in model.extract_feat(first)])
    # On whole tokens, and so not on the clusters of the other image.
    torch.testing.assert_close(given, model.decode_head.forward(features))
    torch.testing.assert_close(changed, model.decode_head.forward([2 * x for x in features]))
    assert not torch.equal(given, alone)


def test_until_head_needs_a_head_that_allows_it():
    with pytest.raises(ValueError, match="until='head'"):
        fewtokens.attach(vit(), fewtokens.Hourglass(2, 4, until='head'))


@pytest.mark.parametrize('shape', [(1, 64, 64), (3, 64, 64), (2, 80, 48), (1, 57, 91)])
def test_any_batch_and_size(shape):
    model = vit(out_indices=(3, 5), final_norm=True)
    images = torch.randn(shape[0], 3, *shape[1:])
    expected = model(images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, (4, 3))) as attachment:
        for given, wanted in zip(model(images), expected, strict=True):
            assert given.shape == wanted.shape
        assert attachment.cluster_map.shape == (shape[0], *expected[0].shape[2:])
        assert outputs(model).isfinite().all(), 'and another size after it'


def test_an_input_with_too_few_tokens_goes_through_unchanged():
    model = vit(final_norm=True)
    small = torch.randn(1, 3, 64, 16)
    expected = outputs(model, small)
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='8 x 2 tokens'):
            assert torch.equal(outputs(model, small), expected)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            outputs(model, small)
        assert attachment.passes == 0 and attachment.skipped == 2 and 'unchanged: 2' in attachment.summary()


@pytest.mark.parametrize(
    'reducer', [fewtokens.Hourglass(2, 8), fewtokens.SharedUpdate(2, 8), fewtokens.AvgPool(2, 8)], ids=lambda r: str(r)
)
def test_as_many_tokens_as_clusters_are_none_fewer(reducer):
    model = vit(final_norm=True)
    expected = outputs(model)
    with fewtokens.attach(model, reducer) as attachment, pytest.warns(UserWarning, match='8 x 8 tokens'):
        assert torch.equal(outputs(model), expected)
        assert (attachment.passes, attachment.skipped) == (0, 1)
        outputs(model, torch.randn(1, 3, 64, 72))
        assert (attachment.passes, attachment.skipped) == (1, 1)


def test_a_stage_with_nothing_to_reduce_leaves_the_others():
    model = vit(final_norm=True)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (8, 4))) as two, torch.no_grad():
        given = model(IMAGES)[0]
        assert two.passes == 1 and two.token_counts == (64, 16)
    with fewtokens.attach(model, fewtokens.SharedUpdate(3, 4)), torch.no_grad():
        assert torch.equal(model(IMAGES)[0], given)


def replicate(module):
    """What nn.DataParallel does for each of its devices."""
    copies = {id(part): part._replicate_for_data_parallel() for part in module.modules()}
    for part in module.modules():
        for name, child in part._modules.items():
            copies[id(part)]._modules[name] = copies[id(child)]
        for name, parameter in part._parameters.items():
            setattr(copies[id(part)], name, parameter)
    return copies[id(module)]


@pytest.mark.parametrize('switch', [lambda m: fewtokens.attach(m, fewtokens.SharedUpdate(2, 4)), fewtokens.use_sdpa])
def test_data_parallel_is_refused(switch):
    model = vit()
    wrapped = torch.nn.DataParallel(model)
    before = snapshot(model)
    with pytest.raises(ValueError, match='does not work inside nn.DataParallel'):
        switch(wrapped)
    assert snapshot(model) == before
    with switch(model), pytest.raises(RuntimeError, match='does not work inside nn.DataParallel'):
        replicate(model)(IMAGES)


class FSDPModule:
    """What `fully_shard` makes of a module's class, by name."""


def test_sharded_models_are_refused():
    """Before attaching, and in training, where `fully_shard` waits for gradients of all that blocks return."""
    model = vit()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        for block in model.layers:
            block.__class__ = type('FSDPLayer', (FSDPModule, type(block)), {})
        with pytest.raises(RuntimeError, match='FullyShardedDataParallel alone, attached before'):
            model(IMAGES)
        with torch.no_grad():
            model(IMAGES)
    with pytest.raises(ValueError, match='FullyShardedDataParallel alone, attached before'):
        fewtokens.attach(model, fewtokens.SharedUpdate(2, 4))


@pytest.mark.parametrize('after', [0, 2])
def test_images_that_the_host_does_not_take_are_refused(after):
    model = beit()
    with fewtokens.attach(model, fewtokens.SharedUpdate(after, 4)):
        with pytest.raises(ValueError, match='takes images of 8 x 8 tokens, as it was built for; these have 10 x 8'):
            model(torch.randn(1, 3, 80, 64))
        outputs(model)


def test_cluster_map_is_what_the_pass_used():
    model = vit(final_norm=True)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)), spread=False)) as attachment:
        outputs(model)
    x, grid = embed(model, IMAGES)
    x = block_forward(model.layers[0], x)
    centers, first, sizes = merge(x[:, 1:], grid, (6, 6))
    x = torch.cat([x[:, :1], centers], dim=1)
    for block in model.layers[1:3]:
        x = block_forward(block, x, F.pad(sizes.log(), (1, 0)))
    _, second, _ = merge(x[:, 1:], (6, 6), (3, 3), sizes=sizes)
    assert torch.equal(attachment.cluster_map, second.gather(1, first).unflatten(1, grid))


@pytest.mark.parametrize('make', [segmenter, lambda: beit(final_norm=True)], ids=['segmenter', 'beit'])
def test_a_deepcopy_is_attached_by_itself(make):
    model = make()
    expected = outputs(model)
    attachment = fewtokens.attach(model, fewtokens.SharedUpdate(2, 4))
    reduced = outputs(model)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        (other,) = fewtokens.attached(copied)
        assert other is not attachment and torch.equal(outputs(copied), reduced)
        assert (attachment.passes, other.passes) == (1, 2)
        other.remove()
        assert torch.equal(outputs(copied), expected)
    assert torch.equal(outputs(model), reduced)


@pytest.mark.parametrize('reducer', REDUCERS[:4], ids=lambda r: type(r).__name__)
def test_mixed_precision(reducer):
    model = segmenter()
    with fewtokens.attach(model, reducer), fewtokens.use_sdpa(model):
        expected = outputs(model)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = outputs(model).float()
        half = copy.deepcopy(model).bfloat16()
        cast = outputs(half, IMAGES.bfloat16()).float()
    spread = (expected - expected.mean()).abs().mean()
    assert (mixed - expected).abs().mean() < spread and (cast - expected).abs().mean() < spread


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_hourglass_weighs_centers_as_they_were_before_rounding(dtype):
    tokens = 3 * torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(5))
    reducer = fewtokens.Hourglass(0, 4, iters=3, k=5, temperature=2.0)
    half = tokens.to(dtype)
    reduced, expected = reducer.reduce(half, (8, 8)), reducer.reduce(half.float(), (8, 8))
    assert reduced.tokens.dtype == dtype
    for given, wanted in zip(reduced.record, expected.record):
        torch.testing.assert_close(given, wanted)


def gradients(model, images, passes=1):
    model.zero_grad()
    for part in images.chunk(passes):
        sum(out.square().sum() for out in model(part)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('reducer', REDUCERS, ids=lambda r: type(r).__name__)
def test_training_with_and_without_checkpointing(reducer):
    plain, checkpointed = (vit(out_indices=(3, 5), final_norm=True, with_cp=with_cp) for with_cp in (False, True))
    plain.train(), checkpointed.train()
    with fewtokens.attach(plain, reducer), fewtokens.attach(checkpointed, reducer):
        expected, given = gradients(plain, IMAGES, 2), gradients(checkpointed, IMAGES, 2)
    assert (
        all(g.isfinite().all() for g in expected.values()) and expected['patch_embed.projection.weight'].abs().sum() > 0
    )
    for name, gradient in expected.items():
        torch.testing.assert_close(given[name], gradient, rtol=1e-3, atol=1e-3)


def test_several_passes_before_one_checkpointed_backward_are_refused():
    model = vit(final_norm=True, with_cp=True)
    model.train()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        loss = model(IMAGES)[0].sum() + model(IMAGES)[0].sum()
        with pytest.raises(RuntimeError, match='2 forward passes'):
            loss.backward()


def test_torch_compile_sees_what_comes_and_goes():
    model = vit(final_norm=True)
    compiled = torch.compile(model, backend='eager')
    expected = compiled(IMAGES)[0]
    attachment = fewtokens.attach(compiled, fewtokens.SharedUpdate(2, 4))
    reduced = compiled(IMAGES)[0]
    torch.testing.assert_close(reduced, model(IMAGES)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(reduced, expected, atol=1e-3)
    attachment.remove()
    torch.testing.assert_close(compiled(IMAGES)[0], expected)


def test_a_failed_pass_does_not_spoil_the_next():
    model = vit(final_norm=True)
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)):
        expected = outputs(model)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 5, 64, 64))
        assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize(
    'reducer, message',
    [
        (fewtokens.Hourglass(6, 4), 'after=6 must be between 0 and 5'),
        (fewtokens.SharedUpdate((1, 9), (4, 2)), 'after=9 must be between 0 and 5'),
        ('Hourglass', "reducer='Hourglass' must be a reducer"),
    ],
)
def test_settings_that_do_not_fit_are_named(reducer, message):
    model = vit()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(model, reducer)
    assert snapshot(model) == before


def test_grid_larger_than_a_fixed_grid_is_refused():
    with pytest.raises(ValueError, match=r'grid=\(9, 9\) must be at most \(8, 8\), tokens'):
        fewtokens.attach(beit(), fewtokens.Hourglass(2, 9))


def test_second_attach_is_refused():
    model = segmenter()
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)):
        with pytest.raises(ValueError, match='attached already'):
            fewtokens.attach(model.backbone, fewtokens.SharedUpdate(2, 4))
    fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)).remove()


def test_unknown_host_lists_the_known():
    with pytest.raises(ValueError, match='mmseg VisionTransformer, mmseg BEiT and MAE'):
        fewtokens.attach(torch.nn.Linear(2, 2), fewtokens.Hourglass(2, 4))
    assert 'no known backbone' in fewtokens.supported(torch.nn.Linear(2, 2))


COMPILED_AWAY = {
    'jit': lambda model: torch.jit.trace(model, IMAGES, strict=False),
    'export': lambda model: torch.export.export(model, (IMAGES,)).module(),
    'fx': lambda model: torch.fx.GraphModule(model, torch.fx.Graph()),
}


@pytest.mark.filterwarnings('ignore')  # of the tracer, about the host
@pytest.mark.parametrize('made', COMPILED_AWAY.values(), ids=COMPILED_AWAY)
def test_what_was_compiled_away_says_what_fits(made):
    model = made(vit(depth=2))
    message = 'its blocks were compiled away, .*: attach to the model that it was made of'
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(model, fewtokens.Hourglass(1, 4))
    assert re.search(message, fewtokens.supported(torch.nn.Sequential(model)))


def test_several_backbones_are_listed():
    model = torch.nn.ModuleDict(dict(left=vit(), right=beit()))
    with pytest.raises(ValueError, match=r"2 backbones: 'left' \(mmseg VisionTransformer\), 'right'"):
        fewtokens.attach(model, fewtokens.Hourglass(2, 4))
    with fewtokens.attach(model.get_submodule('left'), fewtokens.Hourglass(2, 4)):
        outputs(model['left'])


def test_supported_says_what_fits():
    text = fewtokens.supported(segmenter())
    for part in (
        'backbone: mmseg VisionTransformer, 6 blocks, 8 x 8 tokens',
        '1 prefix tokens',
        '0 to 5',
        "'head' (decode_head)",
    ):
        assert part in text
