"""The kernels on a CUDA device, alone and in whole passes. Needs torch, triton and timm; skipped where no device is."""

import os
from contextlib import contextmanager

import pytest
import torch

import fewtokens
from fewtokens.ops import attend, backend, dense, k_medoids, match_pairs, merge_pairs, merge_tokens, reconstruct_tokens
from fewtokens.ops.hourglass import cluster_widely
from fewtokens.ops.medoids import _pairwise_distances, choose_medoids
from fewtokens.ops.shared_update import lengthen_means, merge_lengthened, restore_updated
from fewtokens.ops.spread import LayerNorm, activate_members, norm_members
from fewtokens.ops.ward import merge_nearest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device here'),
    pytest.mark.skipif(os.environ.get('TRITON_INTERPRET') == '1', reason='TRITON_INTERPRET=1: not on the device'),
]
ROUNDING = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
SHAPES = [  # batch, grid, clusters, window, iterations, width, type
    (1, (40, 40), (20, 20), 3, 5, 1024, torch.bfloat16),
    (2, (64, 64), (32, 32), 3, 5, 1024, torch.bfloat16),
    (3, (37, 53), (9, 13), 5, 1, 1000, torch.float16),
    (2, (14, 14), (1, 2), 5, 0, 37, torch.bfloat16),
    (1, (24, 24), (8, 8), 1, 1, 768, torch.float32),
    (2, (24, 24), (13, 11), 3, 2, 768, torch.float32),
    (2, (40, 40), (12, 12), 3, 5, 1024, torch.bfloat16),
]


@pytest.fixture(autouse=True)
def exact_products_and_unwritten_memory_that_shows():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def poisoned():
    """New memory is filled with what is no number, so that what a kernel leaves out shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def error(given, expected):
    return ((given.double() - expected.double()).norm() / expected.double().norm()).item()


def smooth(batch, grid, width, dtype):
    """Tokens of which neighbours are alike."""
    x = torch.randn(batch, width, *grid, device='cuda')
    return (
        (torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) * 3).flatten(2).transpose(1, 2).to(dtype)
    )


def check_merge(shape, together):
    from fewtokens.ops.triton.shared_update import launch_lengthened

    batch, grid, clusters, window, iters, width, dtype = shape
    x, sizes = smooth(batch, grid, width, dtype), torch.randint(1, 5, (batch, grid[0] * grid[1]), device='cuda').float()
    with poisoned():
        means, labels, merged, spreads = launch_lengthened(x, grid, clusters, iters, window, sizes, together)
    wide = x.double()
    expected = merge_lengthened(wide, grid, clusters, iters, window, sizes.double(), backend='torch')
    # Two centers may be equally near but for rounding.
    assert (labels != expected[1]).float().mean() < 2e-3
    member = torch.nn.functional.one_hot(labels, clusters[0] * clusters[1]).double() * sizes[..., None]
    assert torch.equal(merged.double(), member.sum(1))
    averages = torch.cat([wide, wide.norm(dim=2, keepdim=True), wide.square().sum(2, keepdim=True)], 2)
    averages = member.transpose(1, 2) @ averages / merged[..., None].double().clamp_min(1e-30)
    exact, length, square = averages.split([width, 1, 1], 2)
    own = exact.norm(dim=2, keepdim=True)
    full = merged > 0
    assert error(means[full], (exact * (length / own).sqrt())[full]) < ROUNDING[dtype]
    assert error(spreads[full], ((square - own.square()) / width)[full][:, 0]) < 1e-3
    assert not spreads[~full].any()
    assert error(means, expected[0]) < max(ROUNDING[dtype], 5e-2)


@pytest.mark.parametrize('shape', SHAPES[1:3], ids=str)
def test_merge_step_by_step(shape):
    check_merge(shape, together=False)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_merge_in_one_launch_whose_programs_wait(shape):
    for _ in range(3):
        check_merge(shape, together=True)


@pytest.mark.parametrize('shape', SHAPES[1:3], ids=str)
def test_one_launch_gives_what_many_give_and_what_each_sample_gives_alone(shape):
    from fewtokens.ops.triton.shared_update import launch_lengthened

    batch, grid, clusters, window, iters, width, dtype = shape
    for _ in range(20):
        x = smooth(batch, grid, width, dtype)
        one, many = (launch_lengthened(x, grid, clusters, iters, window, None, t) for t in (True, False))
        alone = launch_lengthened(x[-1:], grid, clusters, iters, window, None, True)
        for given, expected, last in zip(one, many, alone):
            torch.testing.assert_close(given, expected, rtol=0, atol=0)
            torch.testing.assert_close(given[-1:], last, rtol=0, atol=0)


@pytest.mark.parametrize('shape', [SHAPES[0], SHAPES[5]], ids=str)
def test_a_sample_that_is_no_number_touches_no_other(shape):
    from fewtokens.ops.triton.shared_update import launch_lengthened

    _, grid, clusters, window, iters, width, dtype = shape
    x = smooth(2, grid, width, dtype)
    clean = launch_lengthened(x, grid, clusters, iters, window, None)
    x[0, 100] = float('nan')
    with poisoned():
        given = launch_lengthened(x, grid, clusters, iters, window, None)
    assert given[1].min() >= 0 and given[1].max() < clusters[0] * clusters[1]
    for one, other in zip(given, clean):
        assert torch.equal(one[1], other[1])


MATCHED = [  # batch, tokens, groups, width, type
    (1, 1600, 1230, 1024, torch.bfloat16),
    (3, 1369, 891, 384, torch.float16),
    (2, 333, 41, 1000, torch.float32),
    (1, 3001, 1100, 64, torch.bfloat16),
]


def loss_of(x, means, labels, sizes):
    return ((x - means.gather(1, labels[..., None].expand_as(x))).square().sum(2) * sizes).sum()


@pytest.mark.parametrize('together', [True, False])
@pytest.mark.parametrize('shape', MATCHED, ids=str)
def test_nearest(shape, together):
    from fewtokens.ops.triton.ward import launch_lengthened

    batch, n_tokens, n_groups, width, dtype = shape
    x = smooth(batch, (1, n_tokens), width, dtype)
    sizes = torch.randint(1, 5, (batch, n_tokens), device='cuda').float()
    with poisoned():
        means, labels, merged, spreads = launch_lengthened(x, n_groups, 8, sizes, together)
    wide, weights = x.double(), sizes.double()
    assert all(sample.unique().numel() == n_groups for sample in labels)
    assert torch.equal(merged, torch.zeros_like(merged).scatter_add(1, labels, sizes))
    # What its labels stand for is what it says; and they are as good as those of PyTorch's form, but for rounding.
    own = torch.zeros(means.shape, dtype=torch.float64, device='cuda')
    own = own.scatter_add(1, labels[..., None].expand_as(wide), wide * weights[..., None]) / merged.double()[..., None]
    factors, expected = lengthen_means(wide, labels, own, merged.double(), weights)
    assert error(means, own * factors) < ROUNDING[dtype] and error(spreads, expected) < 1e-3
    whole = merge_nearest(wide, n_groups, weights, 'torch')
    torch.testing.assert_close(
        loss_of(wide, own, labels, weights), loss_of(wide, *whole[:2], weights), rtol=5e-3, atol=0
    )


def test_rounds_in_one_launch_give_what_many_give():
    from fewtokens.ops.triton.ward import launch_lengthened

    for _ in range(20):
        x = smooth(2, (1, 1600), 1024, torch.bfloat16)
        one, many = (launch_lengthened(x, 900, 8, None, together) for together in (True, False))
        for given, expected in zip(one, many):
            torch.testing.assert_close(given, expected, rtol=0, atol=0)


@pytest.mark.parametrize('shape', MATCHED, ids=str)
def test_pairs(shape):
    batch, n_tokens, _, width, dtype = shape
    x, r = smooth(batch, (1, n_tokens), width, dtype), n_tokens // 3
    with poisoned():
        merged, labels, sizes = merge_pairs(x, r, 1, None, x[..., : width // 2], 'triton')
    assert torch.equal(labels, match_pairs(x[..., : width // 2], r, 1, 'triton'))
    wide, ones = x.double(), torch.ones(batch, n_tokens, dtype=torch.float64, device='cuda')
    own = torch.zeros(merged.shape, dtype=torch.float64, device='cuda')
    own = own.scatter_add(1, labels[..., None].expand_as(wide), wide) / sizes.double()[..., None]
    assert error(merged, own) < ROUNDING[dtype] and sizes[:, 0].eq(1).all() and sizes.sum() == batch * n_tokens
    expected = merge_pairs(wide, r, 1, None, wide[..., : width // 2], 'torch')
    losses = [loss_of(wide, *each, ones) for each in ((own, labels), expected[:2])]
    torch.testing.assert_close(*losses, rtol=5e-3, atol=0)


@pytest.mark.parametrize('shape', [SHAPES[2], (1, (40, 40), (28, 28), 5, 5, 1024, torch.bfloat16)], ids=str)
def test_clustering_and_reconstruction(shape):
    batch, grid, clusters, window, iters, width, dtype = shape
    x = smooth(batch, grid, width, dtype)
    temperature = torch.linspace(20, 80, batch, device='cuda')[:, None, None]
    with poisoned():
        centers, labels = cluster_widely(x, grid, clusters, iters, window, temperature, 'triton')
    wide = x.double()
    expected = cluster_widely(wide, grid, clusters, iters, window, temperature.double(), 'torch')
    assert error(centers, expected[0]) < 1e-4
    assert (labels != expected[1]).float().mean() < 1e-3
    z = torch.randn_like(centers).to(dtype)
    for normalize in ('sum', 'l2'):
        with poisoned():
            given = reconstruct_tokens(z, x, centers, 20, temperature, normalize, 'triton')
        whole = reconstruct_tokens(z.double(), wide, centers.double(), 20, temperature.double(), normalize, 'torch')
        assert error(given, whole) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_restoring(dtype):
    before, tokens = torch.randn(2, 1601, 1000, device='cuda').to(dtype), torch.randn(2, 401, 1000, device='cuda')
    tokens, centers = tokens.to(dtype)[:, 1:], torch.randn(2, 400, 1000, device='cuda').to(dtype)
    labels = torch.randint(0, 400, (2, 1600), device='cuda')
    with poisoned():
        given = restore_updated(before[:, 1:], tokens, centers, labels, 'triton')
    parts = [each.double() for each in (before[:, 1:], tokens, centers)]
    assert error(given, restore_updated(*parts, labels)) < ROUNDING[dtype] / 2


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_norm_and_activation_of_members(dtype):
    value = (3 + torch.randn(2, 402, 1000, device='cuda')).to(dtype)[:, 1:]
    apart = torch.rand(2, 401, 1, device='cuda')
    weight, bias = 1 + torch.randn(2, 1000, device='cuda') / 4
    linear, hidden = torch.randn(3000, 1000, device='cuda').to(dtype) / 30, torch.randn(2, 401, 3000, device='cuda')
    hidden = hidden.to(dtype)
    with poisoned():
        normed, share = norm_members(value, apart, refuse, bias, LayerNorm(weight, bias, 1e-6), 'triton')
        kinds = {'gelu': 'none', 'gelu tanh': 'tanh'}
        given = {kind: activate_members(hidden, share, refuse, linear, weight, kind, 'triton') for kind in kinds}
    wide = [each.double() for each in (value, apart, weight, bias, hidden, linear)]
    exact = torch.nn.functional.layer_norm(wide[0], (1000,), wide[2], wide[3], 1e-6)
    expected = norm_members(wide[0], wide[1], lambda _: exact, wide[3])
    assert error(normed, expected[0]) < ROUNDING[dtype] and error(share, expected[1]) < 1e-4
    for kind, approximate in kinds.items():
        gelu = torch.nn.GELU(approximate)
        assert error(given[kind], activate_members(wide[4], expected[1], gelu, wide[5], wide[2])) < ROUNDING[dtype]


def refuse(value):
    raise AssertionError('a kernel was asked for')


HEADS = [  # batch, heads, queries, keys, width, type
    (1, 16, 401, 401, 64, torch.bfloat16),
    (8, 3, 1025, 1025, 64, torch.float16),
    (2, 2, 77, 130, 72, torch.bfloat16),
    (2, 4, 200, 64, 80, torch.float16),
    (1, 1, 1, 1, 128, torch.bfloat16),
    (3, 2, 65, 190, 16, torch.float16),
]


@pytest.mark.parametrize('shape', HEADS, ids=str)
def test_attention_with_a_bias(shape):
    batch, heads, queries, keys, width, dtype = shape
    q = torch.randn(batch, queries, heads, width, device='cuda').to(dtype).transpose(1, 2)
    k, v = torch.randn(batch, keys, 2, heads, width, device='cuda').to(dtype).permute(2, 0, 3, 1, 4)
    bias = torch.randint(1, 9, (batch, keys), device='cuda').float().log()
    bias[:, 1::3] = -torch.inf
    with poisoned():
        given = attend(q, k, v, bias, backend='triton')
    assert error(given, dense.attend(*(each.double() for each in (q, k, v, bias)))) < ROUNDING[dtype] / 2


def test_the_dense_forms_agree():
    x = smooth(1, (24, 20), 64, torch.float32)
    for given, expected in zip(
        merge_tokens(x, (24, 20), (8, 7), 2, 3), dense.merge_tokens(x.double(), (24, 20), (8, 7), 2, 3)
    ):
        torch.testing.assert_close(given.double(), expected.double(), rtol=1e-4, atol=1e-4)


# Whole passes

REDUCERS = {
    'SharedUpdate': fewtokens.SharedUpdate(2, 7),
    'nested': fewtokens.SharedUpdate((1, 3), (10, 5)),
    'Hourglass': fewtokens.Hourglass(2, 10),
    'BipartiteMerge': fewtokens.BipartiteMerge((1, 2, 3), 24),
    'AvgPool': fewtokens.AvgPool(2, 7),
    'GradualUpdate': fewtokens.GradualUpdate((0, 2, 4), 0.3),
}


@pytest.fixture(params=REDUCERS)
def reducer(request):
    return REDUCERS[request.param]


def vit(dtype=torch.bfloat16):
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    torch.manual_seed(0)
    model = vision_transformer.VisionTransformer(
        img_size=224, embed_dim=192, depth=6, num_heads=3, num_classes=0, global_pool=''
    )
    return model.to('cuda', dtype).eval()


def images(dtype=torch.bfloat16, batch=2):
    return torch.randn(batch, 3, 224, 224, device='cuda', dtype=dtype)


@contextmanager
def attached(model, reducer):
    with fewtokens.attach(model, reducer) as attachment, torch.inference_mode():
        yield attachment
    assert attachment.passes > 0


def test_nothing_waits(reducer):
    model, x = vit(), images()
    with attached(model, reducer):
        model(x)
        torch.cuda.set_sync_debug_mode('error')
        try:
            model(x)
        finally:
            torch.cuda.set_sync_debug_mode('default')


def test_nothing_waits_in_pytorch_either(reducer, monkeypatch):
    monkeypatch.setattr(backend, '_is_capable', lambda device: False)
    test_nothing_waits(reducer)


def test_a_captured_pass_gives_what_an_eager_one_gives(reducer):
    model, x = vit(), images()
    with attached(model, reducer):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                model(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(x)
        for _ in range(3):
            x.copy_(images())
            graph.replay()
            assert error(out, model(x)) < 1e-3


@pytest.mark.parametrize('name', ['nested', 'Hourglass', 'BipartiteMerge', 'GradualUpdate'])
def test_a_pass_in_kernels_is_one_in_pytorch(name, monkeypatch):
    model, x = vit(torch.float32), images(torch.float32)
    with attached(model, REDUCERS[name]):
        given = model(x)
        monkeypatch.setattr(backend, '_is_capable', lambda device: False)
        assert error(given, model(x)) < 1e-3


def test_blocks_attend_in_the_kernel(monkeypatch):
    from fewtokens.ops.triton import attention

    model, x, launch, launched = vit(), images(), attention.launch_attention, []
    monkeypatch.setattr(attention, 'launch_attention', lambda *args: launched.append(args) or launch(*args))
    with attached(model, fewtokens.SharedUpdate(2, 7)):
        given = model(x)
        assert len(launched) == 4
        with monkeypatch.context() as patch:
            patch.setattr('fewtokens.hosts.attention.use_kernels', lambda *args: False)
            assert error(given, model(x)) < 2e-2 and len(launched) == 4
        # Compiled, what blocks give is rounded otherwise, by which a token may join another group.
        assert torch.compile(model, fullgraph=True)(x).isfinite().all() and len(launched) == 8


def test_gradients():
    model, x = vit(torch.float32), images(torch.float32).requires_grad_()
    with fewtokens.attach(model, REDUCERS['SharedUpdate']):
        model(x).square().mean().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_autocast():
    model, x = vit(torch.float32), images(torch.float32)
    with attached(model, REDUCERS['SharedUpdate']), torch.autocast('cuda', torch.bfloat16):
        assert model(x).isfinite().all()


def test_the_channels_of_a_bias_are_its_mask():
    from fewtokens.hosts.attention import key_mask
    from fewtokens.measure.gpu.attention import channel_attention

    for width in (64, 80):
        q, k, v = torch.randn(3, 2, 3, 101, width, device='cuda', dtype=torch.bfloat16)
        bias = torch.randint(0, 9, (2, 101), device='cuda').float().log()
        expected = torch.nn.functional.scaled_dot_product_attention(
            q.double(), k.double(), v.double(), key_mask(bias.double())
        )
        assert error(channel_attention(q, k, v, bias), expected) < 1e-2


@pytest.mark.parametrize('settings', [dict(), dict(p=1.0), dict(metric='cosine'), dict(normalize=True)], ids=str)
def test_medoids_of_a_sample_do_not_depend_on_its_batch(settings):
    x = torch.randn(8, 300, 512, device='cuda')
    together = k_medoids(x, 40, **settings)
    # Pair by pair as there: of a cluster of two, both are equally central but for rounding.
    wide, norms = x.cpu().double(), x.cpu().double().norm(dim=2)
    directions = wide / (norms[:, :, None] + 1e-6)
    cosine = settings.get('metric') == 'cosine'
    points = directions if cosine or settings.get('normalize') else wide
    distances = torch.cdist(points, points, settings.get('p', 2.0), 'donot_use_mm_for_euclid_dist')
    if cosine:
        squared = points.square().sum(2)
        distances = 1 - (squared[:, :, None] + squared[:, None, :] - distances.square()) / 2
    expected = choose_medoids(distances, norms, 40)
    # Almost all clusterings are the same; where rounding led to another one, that is as good.
    assert (together[0].cpu() == expected[0]).float().mean() > 0.5
    costs = [
        distances.gather(2, medoids.cpu().gather(1, labels.cpu())[..., None]).mean()
        for medoids, labels in (together, expected)
    ]
    torch.testing.assert_close(*costs, rtol=5e-3, atol=0)
    torch.cuda.set_sync_debug_mode('error')
    try:
        unread = k_medoids(x, 40, max_iters=20, wait=False, backend='torch', **settings)
        alone = k_medoids(x[3:4], 40, max_iters=20, wait=False, backend='torch', **settings)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    for whole, other, one in zip(together, unread, alone):
        assert torch.equal(whole, other) and torch.equal(whole[3:4], one)


MEDOIDS = [(24, 392, 49), (4, 2352, 196), (140, 98, 49), (3, 61, 61), (2, 5000, 1), (2, 1, 1)]  # batch, points, k


def distances_of(batch, count):
    """Of points of which some are the same, or no numbers."""
    x = torch.randn(batch, count, 64, device='cuda') * torch.rand(batch, count, 1, device='cuda').exp()
    x[:, count // 2 : count // 2 * 2 : 3] = x[:, : count // 2 : 3].clone()
    x[-1, -1] = float('nan')
    return _pairwise_distances(x, 'euclidean', 2.0, exact=True).nan_to_num_(nan=1e30), x.norm(dim=2)


@pytest.mark.parametrize('shape', MEDOIDS, ids=str)
def test_medoids_are_those_of_pytorch(shape):
    batch, count, k = shape
    distances, norms = distances_of(batch, count)
    for max_iters in (0, 1, 100):
        expected = choose_medoids(distances, norms, k, max_iters, backend='torch')
        for _ in range(5):  # threads that do not wait for each other would show now and then
            with poisoned():
                given = choose_medoids(distances, norms, k, max_iters, backend='triton')
            for one, other in zip(given, expected):
                assert torch.equal(one, other)


def test_medoids_wait_for_nothing_and_are_captured():
    batch, count, k = MEDOIDS[0]
    distances, norms = distances_of(batch, count)
    choose_medoids(distances, norms, k)
    torch.cuda.set_sync_debug_mode('error')
    try:
        choose_medoids(distances, norms, k)
        k_medoids(torch.randn(2, 98, 64, device='cuda'), 49)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given = choose_medoids(distances, norms, k)
    for _ in range(3):
        for old, new in zip((distances, norms), distances_of(batch, count)):
            old.copy_(new)
        graph.replay()
        for one, other in zip(given, choose_medoids(distances, norms, k, backend='torch')):
            assert torch.equal(one, other)


@pytest.mark.parametrize('name', ['SharedUpdate', 'Hourglass', 'BipartiteMerge', 'GradualUpdate'])
def test_compiled_whole(name):
    model, x = vit(torch.float32), images(torch.float32)
    with fewtokens.attach(model, REDUCERS[name]), torch.no_grad():
        expected = model(x)
        assert error(torch.compile(model, fullgraph=True)(x), expected) < 1e-3


@pytest.mark.parametrize('name', ['SharedUpdate', 'GradualUpdate'])
def test_compiled_into_a_graph(name):
    model = vit(torch.float32)
    with fewtokens.attach(model, REDUCERS[name]), torch.no_grad():
        run = torch.compile(model, mode='reduce-overhead', fullgraph=True)
        for _ in range(4):
            x = images(torch.float32)
            torch.compiler.cudagraph_mark_step_begin()
            assert error(run(x).clone(), model(x)) < 1e-3
    assert not torch._dynamo.utils.counters['inductor']['cudagraph_skips']


@torch.no_grad()
def test_ops_compiled_whole():
    def both(x):
        means, labels, _ = merge_tokens(x, (14, 14), (7, 7), 2, 3)
        centers = cluster_widely(x, (14, 14), (7, 7), 2, 3, 50.0)[0]
        return restore_updated(x, 2 * means, means, labels), reconstruct_tokens(centers, x, centers, 20)

    x = smooth(2, (14, 14), 192, torch.bfloat16)
    for given, expected in zip(torch.compile(both, fullgraph=True)(x), both(x)):
        assert error(given, expected) < 1e-2
    distances, norms = distances_of(2, 98)
    compiled = torch.compile(choose_medoids, fullgraph=True)(distances, norms, 20)
    for given, expected in zip(compiled, choose_medoids(distances, norms, 20)):
        assert torch.equal(given, expected)
