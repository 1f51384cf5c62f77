import numpy as np
import pytest
import torch

import fewtokens
from fewtokens.ops import cluster_tokens, dense, reconstruct_tokens
from fewtokens.ops.temperature import fitting_temperature

CASES = [  # grid, clusters, window, iters, temperature
    ((40, 40), (28, 28), 5, 5, 50.0),
    ((17, 23), (5, 7), 3, 4, 10.0),
    ((7, 5), (7, 5), 5, 2, 5.0),
    ((9, 31), (4, 30), 7, 3, 2.0),
    ((12, 12), (1, 1), 5, 1, 1.0),
    ((13, 8), (6, 3), 1, 3, 1.0),
    ((10, 10), (9, 9), 4, 0, 1.0),
]


@pytest.mark.parametrize('name', ['cluster1', 'cluster4', 'cluster5'])
@pytest.mark.parametrize('op', [cluster_tokens, dense.cluster_tokens])
def test_published_centers(golden, features, name, op):
    meta, stored = golden[name]
    x = features(meta['seed'], meta['shape'], meta['scale'])
    grid, clusters = tuple(meta['shape'][1:3]), tuple(meta['clusters'])
    centers, _ = op(x, grid, clusters, meta['iters'], meta['window'], meta['temperature'])
    assert (centers - stored['centers']).norm() < 1e-4 * stored['centers'].norm()
    assert torch.equal(dense.squared_distances(x, centers).argmin(2), stored['labels'].long())


@pytest.mark.parametrize('name', ['recon1', 'recon4', 'recon5'])
@pytest.mark.parametrize('normalize', ['sum', 'l2'])
@pytest.mark.parametrize('op', [reconstruct_tokens, dense.reconstruct_tokens])
def test_published_reconstruction(golden, features, name, normalize, op):
    meta, stored = golden[name]
    clustered, arrays = golden[meta['case']]
    before = features(clustered['seed'], clustered['shape'], clustered['scale'])
    centers = arrays['centers']
    shape = (len(centers), centers.shape[1], meta['zdim'])
    z = torch.from_numpy(np.random.RandomState(meta['zseed']).standard_normal(shape).astype(np.float32))
    out = op(z, before, centers, meta['k'], clustered['temperature'], normalize)
    assert (out - stored[normalize]).norm() < 1e-4 * stored[normalize].norm()


@pytest.mark.parametrize('grid, clusters, window, iters, temperature', CASES)
@pytest.mark.parametrize('batch', [1, 3])
def test_windowed_equals_dense(grid, clusters, window, iters, temperature, batch):
    x = torch.randn(batch, grid[0] * grid[1], 6)
    centers, labels = cluster_tokens(x, grid, clusters, iters, window, temperature)
    expected, expected_labels = dense.cluster_tokens(x, grid, clusters, iters, window, temperature)
    torch.testing.assert_close(centers, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, expected_labels) and labels.dtype == torch.int64


@pytest.mark.parametrize('grid, clusters', [((22, 76), (28, 28)), ((2, 40), (9, 8)), ((12, 1), (3, 4))])
def test_more_rows_or_columns_of_centers_than_of_tokens_equal_dense(grid, clusters):
    x = torch.randn(2, grid[0] * grid[1], 6)
    centers, labels = cluster_tokens(x, grid, clusters, 3, 5, 1.0)
    expected, _ = dense.cluster_tokens(x, grid, clusters, 3, 5, 1.0)
    torch.testing.assert_close(centers, expected, rtol=1e-4, atol=1e-5)
    # Pooled centers repeat, and of equal ones either may be the nearest.
    allowed = dense.allowed_centers(grid, clusters, 5)
    distances = dense.squared_distances(x, expected).masked_fill(~allowed, torch.inf)
    found = distances.gather(2, labels[..., None])[..., 0]
    torch.testing.assert_close(found, distances.amin(2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_measures_in_float32(dtype):
    x = (torch.randn(2, 63, 8) * 3).to(dtype)
    centers, labels = cluster_tokens(x, (7, 9), (3, 4))
    expected, expected_labels = dense.cluster_tokens(x.float(), (7, 9), (3, 4))
    assert centers.dtype == dtype and torch.equal(labels, expected_labels)
    torch.testing.assert_close(centers, expected.to(dtype))
    restored = reconstruct_tokens(centers, x, centers)
    assert restored.dtype == dtype
    expected = dense.reconstruct_tokens(centers.float(), x.float(), centers.float())
    torch.testing.assert_close(restored, expected.to(dtype))


def test_autocast_measures_in_float32():
    x = torch.randn(2, 63, 8) * 3
    expected = cluster_tokens(x, (7, 9), (3, 4))[0]
    with torch.autocast('cpu', torch.bfloat16):
        centers = cluster_tokens(x, (7, 9), (3, 4))[0]
        restored = reconstruct_tokens(centers, x, centers)
    assert torch.equal(centers, expected)
    assert torch.equal(restored, reconstruct_tokens(expected, x, expected))


def test_non_contiguous_tokens():
    x = torch.randn(8, 63, 2).transpose(0, 2)
    assert not x.is_contiguous()
    settings = dict(grid=(7, 9), clusters=(3, 4), temperature=1.0)
    for given, expected in zip(cluster_tokens(x, **settings), cluster_tokens(x.contiguous(), **settings)):
        torch.testing.assert_close(given, expected)


def test_gradients_equal_the_dense_ones():
    x = torch.randn(2, 35, 4, dtype=torch.float64, requires_grad=True)
    out = torch.randn(2, 12, 4, dtype=torch.float64)
    gradients = []
    for op in (cluster_tokens, dense.cluster_tokens):
        gradients += torch.autograd.grad((op(x, (5, 7), (3, 4), 3, 5, 2.0)[0] * out).sum(), x)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('normalize', ['sum', 'l2'])
def test_reconstruction_gradient(normalize):
    before, centers = torch.randn(2, 15, 4, dtype=torch.float64), torch.randn(2, 6, 4, dtype=torch.float64)
    z = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: reconstruct_tokens(z, before, centers, 3, 2.0, normalize), z)


@pytest.mark.parametrize('normalize', ['sum', 'l2'])
def test_far_tokens_keep_their_weights(normalize):
    before, centers, z = torch.randn(1, 10, 4) + 1000, torch.randn(1, 6, 4), torch.randn(1, 6, 3)
    out = reconstruct_tokens(z, before, centers, k=3, temperature=1.0, normalize=normalize)
    nearest = dense.squared_distances(before.double(), centers.double()).argmin(2)
    assert out.isfinite().all() and (out.abs().sum(2) > 0).all()
    torch.testing.assert_close(out, z[:, nearest[0]], atol=1e-2, rtol=1e-2)


def test_k_is_clamped_to_the_centers():
    before, centers, z = torch.randn(1, 10, 4), torch.randn(1, 6, 4), torch.randn(1, 6, 3)
    assert torch.equal(reconstruct_tokens(z, before, centers, 20), reconstruct_tokens(z, before, centers, 6))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_tokens_stay_in_their_sample(value):
    x = torch.randn(2, 63, 8)
    clean = cluster_tokens(x, (7, 9), (3, 4))
    x[0, 5] = value
    centers, labels = cluster_tokens(x, (7, 9), (3, 4))
    assert labels.min() >= 0 and labels.max() < 12
    torch.testing.assert_close(centers[1], clean[0][1])
    assert reconstruct_tokens(centers, x, centers).shape == x.shape


def test_a_center_that_loses_all_weight_stays():
    x = torch.zeros(1, 16, 2)
    x[0, 5] = 1e4
    centers, _ = cluster_tokens(x, (4, 4), (2, 2), iters=5, window=3, temperature=1e-3)
    assert centers.isfinite().all()


def test_tables_made_in_inference_mode_serve_training():
    x = torch.randn(1, 11 * 13, 4)
    with torch.inference_mode():
        cluster_tokens(x, (11, 13), (3, 4))
    x.requires_grad_()
    cluster_tokens(x, (11, 13), (3, 4))[0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_cost_grows_with_tokens_not_with_pairs():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(side):
        with FlopCounterMode(display=False) as counter:
            cluster_tokens(torch.empty(1, side * side, 8, device='meta'), (side, side), (side // 2, side // 2))
        return counter.get_total_flops()

    assert flops(64) < 4.5 * flops(32)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(x=torch.randn(0, 35, 4)), 'B >= 1'),
        (dict(x=torch.randn(35, 4)), 'B >= 1'),
        (dict(grid=(5, 6)), '35 tokens do not fill'),
        (dict(clusters=(9, 4)), r'\(9, 4\) must be .* at most as many as the tokens of a grid \(5, 7\)'),
        (dict(clusters=(0, 4)), r'\(0, 4\)'),
        (dict(window=0), 'window=0'),
        (dict(iters=-1), 'iters=-1'),
        (dict(temperature=0.0), 'temperature=0.0'),
    ],
)
def test_bad_clustering_is_named(change, message):
    settings = dict(x=torch.randn(2, 35, 4), grid=(5, 7), clusters=(3, 4)) | change
    with pytest.raises(ValueError, match=message):
        cluster_tokens(**settings)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(k=0), 'k=0'),
        (dict(temperature=-1.0), 'temperature=-1.0'),
        (dict(normalize='max'), "'max'"),
        (dict(z=torch.randn(2, 7, 3)), r'\(2, 7, 3\)'),
    ],
)
def test_bad_reconstruction_is_named(change, message):
    settings = dict(z=torch.randn(2, 6, 3), before=torch.randn(2, 15, 4), centers=torch.randn(2, 6, 4)) | change
    with pytest.raises(ValueError, match=message):
        reconstruct_tokens(**settings)


def test_a_fitting_temperature_is_half_the_median_distance_to_the_nearest_pooled_center(features):
    x = features(11, (3, 9, 7, 8))
    x[1] *= 100
    allowed = dense.allowed_centers((9, 7), (4, 3), 3)
    distances = dense.squared_distances(x, dense.pool_tokens(x, (9, 7), (4, 3))).masked_fill(~allowed, torch.inf)
    expected = distances.amin(2).median(1).values / 2
    found = fitting_temperature(x, (9, 7), (4, 3), 3)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-4, atol=1e-6)


def test_scaled_tokens_are_clustered_alike_at_a_fitting_temperature(features):
    x = features(12, (2, 9, 7, 8))

    def reduce(factor):
        reduced = fewtokens.Hourglass(2, (4, 3), iters=3, k=4).reduce(factor * x, (9, 7))
        return reduced.tokens / factor, reduced.labels, reduced.record[1]

    for factor in (1e-3, 1e3):
        for one, other in zip(reduce(factor), reduce(1), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('value, word', [(1e6, 'all weights alike'), (1e-6, 'all weights but one 0'), (None, None)])
def test_a_temperature_that_ruins_tokens_is_told(features, value, word):
    found = fewtokens.Hourglass(2, (4, 3), temperature=value).misfit(features(13, (2, 9, 7, 8)), (9, 7))
    assert found is None if word is None else (word in found and 'would fit' in found)
