"""The kernels against the dense forms, interpreted on the CPU. Run by test_kernels.py in a process of its own."""

import random

import pytest
import torch

from fewtokens.ops import (
    attend,
    cluster_tokens,
    dense,
    k_medoids,
    match_pairs,
    merge_nearest,
    merge_pairs,
    merge_tokens,
    reconstruct_tokens,
    spectral_medoids,
)
from fewtokens.ops.medoids import choose_medoids
from fewtokens.ops.shared_update import lengthen_means, merge_lengthened, restore_updated
from fewtokens.ops.spread import ACTIVATIONS, LayerNorm, activate_members, norm_members
from fewtokens.ops.ward import merge_nearest_lengthened

TYPES = [torch.float32, torch.float16, torch.bfloat16]
ROUNDING = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = ['whole', 'strided', 'behind a prefix']
WIDTHS = (1, 3, 16, 24, 40, 65, 130)


def laid_out(shape, dtype, layout):
    """Random numbers [B, N, C] in memory of that layout."""
    batch, count, width = shape
    if layout == 'strided':
        return torch.randn(width, count, batch).to(dtype).transpose(0, 2)
    if layout == 'behind a prefix':
        return torch.randn(batch, count + 3, width).to(dtype)[:, 3:]
    return torch.randn(shape).to(dtype)


def grids(count, seed):
    """Reproducible cases: grid, clusters, window, iterations, width, batch, type, layout."""
    draw = random.Random(seed)
    for number in range(count):
        grid = draw.randint(1, 7), draw.randint(1, 7)
        clusters = tuple(draw.randint(1, min(side, 3)) for side in grid)
        options = draw.choice((1, 3, 3, 4, 5)), draw.choice((0, 1, 1, 2)), draw.choice(WIDTHS), draw.choice((1, 1, 2))
        yield grid, clusters, *options, TYPES[number % 3], LAYOUTS[number // 3 % 3]


def assert_close(given, expected, dtype):
    torch.testing.assert_close(given.float(), expected.float(), rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


SPECIAL = [
    ((9, 11), (2, 1), 3, 1, 8, 1, torch.float32, 'whole'),
    ((30, 1), (1, 1), 3, 1, 8, 1, torch.bfloat16, 'whole'),
    ((3, 5), (2, 2), 15, 1, 8, 1, torch.float32, 'whole'),
    ((3, 3), (1, 2), 3, 1, 4096, 1, torch.float16, 'whole'),
    ((3, 3), (2, 2), 3, 1, 1000, 1, torch.bfloat16, 'strided'),
    ((3, 9), (5, 4), 5, 2, 8, 2, torch.float32, 'whole'),
    ((1, 13), (6, 2), 3, 1, 8, 1, torch.float32, 'behind a prefix'),
    # As many tokens as have their products with each other kept, or more; grids that do and don't divide.
    ((8, 8), (2, 3), 3, 2, 24, 1, torch.float16, 'strided'),
    ((5, 13), (2, 2), 3, 2, 24, 1, torch.float16, 'strided'),
    ((9, 10), (3, 4), 3, 2, 65, 1, torch.bfloat16, 'whole'),
    ((10, 8), (5, 4), 3, 3, 130, 1, torch.bfloat16, 'behind a prefix'),
    ((11, 9), (5, 4), 3, 2, 24, 2, torch.float32, 'strided'),
    ((7, 6), (5, 4), 5, 2, 24, 1, torch.float16, 'whole'),
    ((5, 4), (5, 4), 7, 1, 40, 1, torch.bfloat16, 'whole'),
]


@pytest.mark.parametrize('case', [*grids(45, 0), *SPECIAL], ids=str)
def test_merge(case):
    grid, clusters, window, iters, width, batch, dtype, layout = case
    x = laid_out((batch, grid[0] * grid[1], width), dtype, layout)
    sizes = torch.randint(0, 4, x.shape[1::-1]).float().T if sum(grid) % 2 else None
    given = merge_tokens(x, grid, clusters, iters, window, sizes, backend='triton')
    means, labels, merged = dense.merge_tokens(x.float(), grid, clusters, iters, window, sizes)
    assert torch.equal(given[1], labels) and given[1].dtype == torch.int64
    assert torch.equal(given[2], merged)
    assert given[0].dtype == dtype
    assert_close(given[0], means, dtype)


@pytest.mark.parametrize('case', [*grids(45, 1), *SPECIAL], ids=str)
def test_cluster(case):
    grid, clusters, window, iters, width, batch, dtype, layout = case
    x = laid_out((batch, grid[0] * grid[1], width), dtype, layout)
    temperature = torch.linspace(1, 9, batch)[:, None, None] * width if sum(grid) % 2 else 3.0 * width
    given = cluster_tokens(x, grid, clusters, iters, window, temperature, backend='triton')
    centers, labels = dense.cluster_tokens(x.float(), grid, clusters, iters, window, temperature)
    assert torch.equal(given[1], labels) and given[1].dtype == torch.int64
    assert given[0].dtype == dtype
    assert_close(given[0], centers, dtype)


@pytest.mark.parametrize('grid', [(4, 12), (8, 12)], ids=str)
def test_cluster_keeps_centers_that_are_far_from_all_tokens(grid):
    # Tokens of the left half are alike, and those of the right: the pooled centers in the middle are like none.
    x = torch.randn(2, *grid, 8) / 10 + torch.tensor([-10.0, 10.0]).repeat_interleave(6)[:, None]
    settings = x.flatten(1, 2), grid, (2, 3), 3, 3, 1.0
    given, expected = cluster_tokens(*settings, 'triton'), dense.cluster_tokens(*settings)
    middle = [1, 4]
    torch.testing.assert_close(expected[0][:, middle], dense.pool_tokens(*settings[:3])[:, middle])
    torch.testing.assert_close(given[0], expected[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(given[1] % 3, expected[1] % 3)
    means, _, sizes = merge_tokens(*settings[:5], backend='triton')
    assert not sizes[:, middle].any() and sizes.sum() == 2 * grid[0] * grid[1]
    torch.testing.assert_close(means[:, middle], expected[0][:, middle])


@pytest.mark.parametrize('number', range(60))
def test_reconstruct(number):
    draw = random.Random(number)
    dtype, layout = TYPES[number % 3], LAYOUTS[number // 3 % 3]
    batch, n_tokens, n_centers = draw.choice((1, 2)), draw.randint(1, 40), draw.randint(1, 20)
    width, out_width = draw.choice(WIDTHS), draw.choice(WIDTHS)
    before, centers = (laid_out((batch, count, width), dtype, layout) for count in (n_tokens, n_centers))
    z = laid_out((batch, n_centers, out_width), dtype, layout)
    settings = draw.randint(1, 24), 2.0 * width, draw.choice(('sum', 'l2'))
    given = reconstruct_tokens(z, before, centers, *settings, backend='triton')
    assert given.dtype == dtype
    assert_close(given, dense.reconstruct_tokens(z.float(), before.float(), centers.float(), *settings), dtype)


@pytest.mark.parametrize('number', range(40))
def test_restore(number):
    draw = random.Random(number)
    dtype, layout = TYPES[number % 3], LAYOUTS[number // 3 % 3]
    batch, n_tokens, n_centers, width = draw.choice((1, 3)), draw.randint(1, 40), draw.randint(1, 20), 1 + number * 17
    before = laid_out((batch, n_tokens, width), dtype, layout)
    tokens, centers = (laid_out((batch, n_centers, width), dtype, layout) for _ in range(2))
    labels = torch.randint(0, n_centers, (batch, n_tokens))
    given = restore_updated(before, tokens, centers, labels, backend='triton')
    expected = before.double() + (tokens.double() - centers.double()).gather(1, labels[..., None].expand_as(before))
    assert given.dtype == dtype
    torch.testing.assert_close(given.double(), expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * 0.1)


@pytest.mark.parametrize('case', [*grids(15, 2)], ids=str)
def test_merge_lengthens(case):
    grid, clusters, window, iters, width, batch, dtype, layout = case
    x = laid_out((batch, grid[0] * grid[1], width), dtype, layout)
    sizes = torch.randint(0, 4, x.shape[1::-1]).float().T if sum(grid) % 2 else None
    given = merge_lengthened(x, grid, clusters, iters, window, sizes, backend='triton')
    means, labels, merged = dense.merge_tokens(x.float(), grid, clusters, iters, window, sizes)
    factors, spreads = lengthen_means(x.float(), labels, means, merged, sizes)
    assert given[0].dtype == dtype and torch.equal(given[1], labels) and torch.equal(given[2], merged)
    assert_close(given[0], means * factors, dtype)
    torch.testing.assert_close(given[3], spreads, rtol=1e-4, atol=1e-5)
    for one, other in zip(given, merge_lengthened(x, grid, clusters, iters, window, sizes)):
        assert_close(one, other, torch.bfloat16 if dtype == torch.bfloat16 else torch.float16)


@pytest.mark.parametrize('number', range(18))
def test_nearest(number):
    draw = random.Random(number)
    dtype, layout = TYPES[number % 3], LAYOUTS[number // 3 % 3]
    width, batch, n_tokens = draw.choice((*WIDTHS, 300)), draw.choice((1, 1, 2)), draw.randint(2, 16)
    n_groups = max(1, n_tokens - draw.randint(1, 5))
    x = laid_out((batch, n_tokens, width), dtype, layout)
    sizes = torch.randint(1, 4, x.shape[1::-1]).float().T if draw.random() < 0.5 else None
    means, labels, merged = dense.merge_nearest(x.float(), n_groups, sizes)
    factors, spreads = dense.lengthen_means(x.float(), labels, means, merged, sizes)
    if number % 4 == 0:
        given = merge_nearest(x, n_groups, sizes, 'triton')
    else:
        given = merge_nearest_lengthened(x, n_groups, sizes, 'triton')
        means = means * factors
        torch.testing.assert_close(given[3], spreads, rtol=1e-4, atol=1e-5)
    assert torch.equal(given[1], labels) and torch.equal(given[2], merged)
    assert given[0].dtype == dtype and given[1].dtype == torch.int64
    assert_close(given[0], means, dtype)


@pytest.mark.parametrize('number', range(18))
def test_pairs(number):
    draw = random.Random(number)
    dtype, layout = TYPES[number % 3], LAYOUTS[number // 3 % 3]
    width, batch, n_tokens = draw.choice((*WIDTHS, 300)), draw.choice((1, 1, 2)), draw.randint(4, 24)
    prefix = draw.choice((0, 0, 1, 2))
    r = draw.randint(1, (n_tokens - prefix) // 2)
    x, metric = (laid_out((batch, n_tokens, each), dtype, layout) for each in (width, draw.choice(WIDTHS[1:])))
    sizes = torch.randint(1, 4, x.shape[1::-1]).float().T if draw.random() < 0.5 else None
    if width > 1 and number % 2:  # of one number only the sign is left
        metric = None
    given = merge_pairs(x, r, prefix, sizes, metric, 'triton')
    expected = dense.merge_pairs(x.float(), r, prefix, sizes, None if metric is None else metric.float())
    assert torch.equal(given[1], expected[1]) and torch.equal(given[2], expected[2])
    assert given[0].dtype == dtype and given[1].dtype == torch.int64
    assert_close(given[0], expected[0], dtype)


def test_pairs_and_nearest_of_more_tokens_than_a_block():
    x = torch.randn(1, 1031, 3)
    assert torch.equal(match_pairs(x, 300, 1, 'triton'), match_pairs(x, 300, 1, 'torch'))
    given, expected = (merge_pairs(x[:, :264], 130, backend=backend) for backend in ('triton', 'torch'))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    given, expected = (merge_nearest(x[:, :70], 66, backend=backend) for backend in ('triton', 'torch'))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('number', range(24))
def test_attend(number):
    draw = random.Random(number)
    batch, heads, width = draw.choice((1, 2)), draw.choice((1, 3)), draw.choice((16, 32, 64, 72, 80, 128))
    queries, keys, dtype = draw.choice((1, 50, 64, 130)), draw.choice((1, 31, 64, 100, 150)), TYPES[1:][number % 2]
    if number % 3 == 0:  # views of one projection
        keys = queries
        q, k, v = torch.randn(batch, keys, 3, heads, width).to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    elif number % 3 == 1:  # neither side by side nor in steps of what is read at once
        q, k, v = (torch.randn(batch, heads, width, n).to(dtype).transpose(2, 3) for n in (queries, keys, keys))
    else:
        q, k, v = (torch.randn(batch, n, heads, width).to(dtype).transpose(1, 2) for n in (queries, keys, keys))
    bias = torch.randint(1, 9, (keys, batch)).T.float().log().to(draw.choice((dtype, torch.float32)))
    bias[:, 1::3] = -torch.inf
    scale = draw.choice((None, 0.2))
    given = attend(q, k, v, bias, scale, 'triton')
    assert given.dtype == dtype and given.transpose(1, 2).is_contiguous()
    assert_close(given, dense.attend(*(each.double() for each in (q, k, v, bias)), scale), dtype)


METRICS = [dict(), dict(exact=True), dict(p=1.0), dict(metric='cosine'), dict(normalize=True), dict(p=3.0)]


def equal_in_both(op, *args, **settings):
    given, expected = (op(*args, **settings, backend=backend) for backend in ('triton', 'torch'))
    return all(torch.equal(one, other) for one, other in zip(given, expected))


@pytest.mark.parametrize('number', range(36))
def test_medoids(number):
    draw = random.Random(number)
    dtype, layout, settings = TYPES[number % 3], LAYOUTS[number // 3 % 3], METRICS[number % 6]
    n_points = (1, 2, 31, 32, 33, 64, 65)[number // 6] if number % 6 == 0 else draw.randint(2, 40)
    k = draw.choice((1, n_points, draw.randint(1, n_points), draw.randint(1, n_points)))
    x = laid_out((draw.choice((1, 2, 3)), n_points, draw.choice(WIDTHS)), dtype, layout)
    if number % 4 == 1:  # a video that stands still
        x = x[:, torch.arange(n_points) % (1 + n_points // 3)]
    if number % 4 == 2:
        x[0, draw.randrange(n_points)] = draw.choice((float('nan'), float('inf'), -float('inf')))
        x[-1, draw.randrange(n_points)] = float('nan')
    tol = (1e-6, 1e-6, 0.5 * x.shape[2] ** 0.5)[number % 3]
    assert equal_in_both(k_medoids, x, k, **settings, max_iters=(100, 100, 0, 1, 2)[number % 5], tol=tol)


KINDS = ['skewed', 'transposed', 'few values', 'far', 'spread over', 'nearly equal', 'norms of any kind']


@pytest.mark.parametrize('kind', KINDS)
def test_medoids_of_distances(kind):
    distances, norms = torch.rand(2, 70, 70), torch.rand(2, 70)
    if kind == 'skewed':  # nearly all are in one cluster
        distances[:, :60, :60] *= 0.1
    elif kind == 'transposed':
        distances, norms = distances.mT, torch.rand(70, 2).T
    elif kind == 'few values':
        distances, norms = (distances * 3).round(), (norms * 2).round()
    elif kind == 'far':
        distances[:, ::9], distances[:, :, ::7] = 1e30, float('inf')
    elif kind == 'spread over':
        distances, norms = distances[:1].expand(3, 70, 70), norms[:1].half().expand(3, 70)
    elif kind == 'nearly equal':  # what tells sums apart is lost in float32
        distances = 1 + (distances * 4).floor() * 2**-23
    else:
        norms = torch.where(norms < 0.5, -0.0, -norms)
        norms[1, [9, 4]] = torch.tensor([0x7FC00000, -0x400000], dtype=torch.int32).view(torch.float32)  # both are nan
    for k in (1, 9):
        assert equal_in_both(choose_medoids, distances, norms, k)


def test_medoids_of_more_points_than_a_block():
    x = torch.randn(1, 2100, 3)
    distances = torch.cdist(x, x)
    assert equal_in_both(choose_medoids, distances, x.norm(dim=2), 9, 1)


def test_medoids_of_graphs():
    for graph in ('heat', 'knn'):
        assert equal_in_both(spectral_medoids, torch.randn(2, 30, 8), 6, graph)


def refuse(value):
    raise AssertionError('a kernel was asked for')


@pytest.mark.parametrize('number', range(36))
def test_norm_of_members(number):
    draw = random.Random(number)
    dtype, layout, width = TYPES[number % 3], LAYOUTS[number // 3 % 3], draw.choice((*WIDTHS, 1000))
    value = laid_out((draw.choice((1, 3)), draw.randint(1, 9), width), dtype, layout)
    value[:, 0] = 2
    apart = torch.rand(value.shape[1], value.shape[0], 1).transpose(0, 1) * (number % 5)
    weight = 1 + torch.randn(width) if number % 2 else None
    bias = torch.randn(width) if number % 4 == 3 else None
    if number % 3 == 0:
        value, apart = value[:, 0], apart[:, 0]
    known = LayerNorm(weight, bias, 1e-6)
    given = norm_members(value, apart, refuse, bias, known, 'triton')
    layer_norm = torch.nn.functional.layer_norm(value.double(), (width,), None, None, 1e-6)
    exact = layer_norm if weight is None else layer_norm * weight
    expected = norm_members(value.double(), apart.double(), lambda _: exact if bias is None else exact + bias, bias)
    assert given[0].dtype == dtype and given[1].dtype == torch.float32
    torch.testing.assert_close(given[0].double(), expected[0].double(), rtol=ROUNDING[dtype], atol=1e-4)
    torch.testing.assert_close(given[1].double(), expected[1].double(), rtol=1e-4, atol=1e-6)


CALLS = {
    'gelu': torch.nn.functional.gelu,
    'gelu tanh': lambda x: torch.nn.functional.gelu(x, approximate='tanh'),
    'quick gelu': lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize('number', range(36))
def test_activation_of_members(number):
    draw = random.Random(number)
    dtype, layout, kind = TYPES[number % 3], LAYOUTS[number // 3 % 3], ACTIVATIONS[number // 9 % 3]
    width, units = draw.choice((*WIDTHS, 300)), draw.choice((1, 15, 40))
    hidden = laid_out((draw.choice((1, 3)), draw.choice((1, 9, 300)), units), dtype, layout)
    share = torch.rand(hidden.shape[1], hidden.shape[0], 1).transpose(0, 1)
    weight = torch.randn(width, units).T.to(dtype) if number % 2 else torch.randn(units, width)
    scale = torch.randn(width) if number % 4 else None
    given = activate_members(hidden, share, refuse, weight, scale, kind, 'triton')
    wide = [None if each is None else each.double() for each in (hidden, share, weight, scale)]
    expected = activate_members(*wide[:2], CALLS[kind], *wide[2:])
    assert given.dtype == dtype
    torch.testing.assert_close(given.double(), expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * 0.1)


def test_what_blocks_are_told_is_the_same_in_kernels(monkeypatch):
    timm = pytest.importorskip('timm.models.vision_transformer')
    import fewtokens
    from fewtokens.hosts import spread

    torch.manual_seed(0)
    settings = dict(img_size=32, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=0, global_pool='')
    model, images = timm.VisionTransformer(**settings).eval(), torch.randn(2, 3, 32, 32)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)), torch.no_grad():
        expected, launched = model(images), []
        for name in ('norm_members', 'activate_members'):
            op = getattr(spread, name)

            def run(*args, op=op):
                launched.append(op)
                return op(*(refuse if callable(each) else each for each in args), 'triton')

            monkeypatch.setattr(spread, name, run)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert len(launched) == 4


@pytest.mark.parametrize('grid', [(4, 5), (8, 9)], ids=str)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_tokens_end_well(value, grid):
    x = torch.randn(2, grid[0] * grid[1], 8)
    clean = merge_tokens(x, grid, (2, 2), 1, 3, backend='triton')
    x[0, 5] = value
    means, labels, sizes = merge_tokens(x, grid, (2, 2), 1, 3, backend='triton')
    assert labels.min() >= 0 and labels.max() < 4 and sizes[0].sum() == x.shape[1]
    for given, expected in zip((means, labels, sizes), clean):
        assert torch.equal(given[1], expected[1])
    centers, labels = cluster_tokens(x, grid, (2, 2), 1, 3, backend='triton')
    assert labels.min() >= 0 and labels.max() < 4
    x = x[:, :20]
    for merge in (merge_nearest, lambda x, groups, **kept: merge_pairs(x, 20 - groups, **kept)):
        labels = merge(x, 18, backend='triton')[1]
        assert labels[0].unique().tolist() == list(range(18))
        assert torch.equal(labels[1], merge(x, 18, backend='torch')[1][1])
    assert reconstruct_tokens(centers, x, centers, 2, backend='triton')[1].isfinite().all()


def test_equal_tokens_end_well():
    x = torch.ones(1, 30, 4)
    means, labels, sizes = merge_tokens(x, (5, 6), (2, 3), backend='triton')
    assert means.isfinite().all() and sizes.sum() == 30
    torch.testing.assert_close(reconstruct_tokens(means, x, means, 3, backend='triton'), x)
    for means, _, sizes in (merge_nearest(x, 22, backend='triton'), merge_pairs(x, 15, backend='triton')):
        assert (means == 1).all() and sizes.sum() == 30 and (sizes > 0).all()


def test_gradients_come_from_pytorch():
    x = torch.randn(1, 12, 4, requires_grad=True)
    for backend in ('torch', 'triton'):
        merges = [merge_tokens(x, (3, 4), (2, 2), backend=backend), merge_nearest(x, 5, backend=backend)]
        for means, *_ in [*merges, merge_pairs(x, 5, backend=backend)]:
            (gradient,) = torch.autograd.grad(means.square().sum(), x)
            assert gradient.abs().sum() > 0


@torch.no_grad()
def test_compiled_whole():
    def both(x):
        means, labels, _ = merge_tokens(x, (3, 4), (2, 2), window=3, backend='triton')
        means = means + merge_lengthened(x, (3, 4), (2, 2), backend='triton')[0]
        centers, _ = cluster_tokens(x, (3, 4), (2, 2), 1, 3, backend='triton')
        heads = torch.cat([x] * 4, dim=2)[:, None].half()
        x = x + attend(heads, heads, heads, x[..., 0], backend='triton')[:, 0, :, :4].float()
        x = x + match_pairs(x, 3, backend='triton')[..., None]
        x = x + merge_pairs(x, 6, backend='triton')[0].repeat(1, 2, 1)
        x = torch.cat([merge(x, 9, backend='triton')[0] for merge in (merge_nearest, merge_nearest_lengthened)], 1)
        x = x[:, :12]
        return restore_updated(x, 2 * means, means, labels, 'triton'), reconstruct_tokens(
            centers, x, centers, 2, backend='triton'
        )

    def medoids(x):
        return k_medoids(x, 5, backend='triton')

    x = torch.randn(1, 12, 4)
    for given, expected in zip(torch.compile(medoids, backend='aot_eager', fullgraph=True)(x), medoids(x)):
        assert torch.equal(given, expected)
    for given, expected in zip(torch.compile(both, backend='aot_eager', fullgraph=True)(x), both(x)):
        torch.testing.assert_close(given, expected)
