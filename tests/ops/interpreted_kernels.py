"""The kernels against the dense forms, interpreted on the CPU. Run by test_kernels.py in a process of its own."""

import random

import pytest
import torch

from fewtokens.ops import cluster_tokens, dense, merge_tokens, reconstruct_tokens
from fewtokens.ops.shared_update import restore_updated

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


def test_merge_rescales():
    from fewtokens.ops.triton.shared_update import launch_merge

    x, sizes = torch.randn(2, 30, 24), torch.randint(0, 4, (2, 30)).float()
    plain, labels, merged = launch_merge(x, (5, 6), (2, 2), 1, 3, sizes, False)
    means, _, _ = launch_merge(x, (5, 6), (2, 2), 1, 3, sizes, True)
    member = torch.nn.functional.one_hot(labels, 4).float() * sizes[..., None]
    norms = torch.einsum('bnm,bn->bm', member, x.norm(dim=2)) / merged
    torch.testing.assert_close(means, plain * (norms / plain.norm(dim=2))[..., None])


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_tokens_end_well(value):
    x = torch.randn(2, 20, 8)
    clean = merge_tokens(x, (4, 5), (2, 2), 1, 3, backend='triton')
    x[0, 5] = value
    means, labels, sizes = merge_tokens(x, (4, 5), (2, 2), 1, 3, backend='triton')
    assert labels.min() >= 0 and labels.max() < 4 and sizes[0].sum() == 20
    for given, expected in zip((means, labels, sizes), clean):
        assert torch.equal(given[1], expected[1])
    centers, labels = cluster_tokens(x, (4, 5), (2, 2), 1, 3, backend='triton')
    assert labels.min() >= 0 and labels.max() < 4
    assert reconstruct_tokens(centers, x, centers, 2, backend='triton')[1].isfinite().all()


def test_equal_tokens_end_well():
    x = torch.ones(1, 30, 4)
    means, labels, sizes = merge_tokens(x, (5, 6), (2, 3), backend='triton')
    assert means.isfinite().all() and sizes.sum() == 30
    torch.testing.assert_close(reconstruct_tokens(means, x, means, 3, backend='triton'), x)


def test_gradients_come_from_pytorch():
    x = torch.randn(1, 12, 4, requires_grad=True)
    for backend in ('torch', 'triton'):
        means = merge_tokens(x, (3, 4), (2, 2), backend=backend)[0]
        (gradient,) = torch.autograd.grad(means.square().sum(), x)
        assert gradient.abs().sum() > 0


@torch.no_grad()
def test_compiled_whole():
    def both(x):
        means, labels, _ = merge_tokens(x, (3, 4), (2, 2), window=3, backend='triton')
        centers, _ = cluster_tokens(x, (3, 4), (2, 2), 1, 3, backend='triton')
        return restore_updated(x, 2 * means, means, labels, 'triton'), reconstruct_tokens(
            centers, x, centers, 2, backend='triton'
        )

    x = torch.randn(1, 12, 4)
    for given, expected in zip(torch.compile(both, backend='aot_eager', fullgraph=True)(x), both(x)):
        torch.testing.assert_close(given, expected)
