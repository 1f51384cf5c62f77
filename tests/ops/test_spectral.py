import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewtokens.ops import dense, k_medoids, spectral, spectral_medoids

SETTINGS = [
    dict(sigma=1.5),
    dict(sigma=0.5, normalize=True),
    dict(graph='knn'),
    dict(graph='knn', knn=3),
    dict(graph='heat', window=(1, 2, 2)),
    dict(graph='knn', knn=4, window=2),
    dict(graph='looped_heat', sigma=1.5),
    dict(graph='looped_heat', window=2),
    dict(graph='heat_knn'),
    dict(graph='heat_knn', knn=6, normalize=True, sigma=0.5),
    dict(graph='heat_knn', knn=9, window=(1, 2, 2)),
]


def clustered(samples, n, width, clusters=4):
    """Points around a few far centers: no cluster hangs on rounding."""
    centers = 3 * torch.randn(samples, clusters, width)
    return centers.repeat_interleave(-(-n // clusters), 1)[:, :n] + 0.5 * torch.randn(samples, n, width)


def patches(name, side=16, size=14):
    """A photograph's patches as tokens [1, side * side, C]."""
    data = pytest.importorskip('skimage.data')
    picture = torch.from_numpy(np.ascontiguousarray(getattr(data, name)()[..., :3])).permute(2, 0, 1)[None] / 255
    picture = F.interpolate(picture, (side * size, side * size), mode='bilinear', antialias=True)
    return F.unfold(picture, size, stride=size).transpose(1, 2)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('n, k', [(2, 1), (30, 4), (60, 4), (23, 23)])
def test_equals_dense(settings, n, k):
    x = clustered(2, n, 8)
    positions = torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(5))[torch.arange(n) % 60]
    if 'window' in settings:
        settings = dict(settings, positions=positions)
    for given, expected in zip(spectral_medoids(x, k, **settings), dense.spectral_medoids(x, k, **settings)):
        assert torch.equal(given, expected)


@pytest.mark.parametrize(
    'settings',
    [
        dict(sigma=0.12),
        dict(graph='knn', knn=10),
        dict(graph='looped_heat', sigma=0.12),
        dict(graph='heat_knn', knn=11, sigma=0.12),
    ],
)
@pytest.mark.parametrize('shape', ['moons', 'rings'])
def test_finds_clusters_that_are_not_round(shape, settings):
    datasets, metrics = pytest.importorskip('sklearn.datasets'), pytest.importorskip('sklearn.metrics')
    made = dict(
        moons=lambda: datasets.make_moons(300, noise=0.05, random_state=0),
        rings=lambda: datasets.make_circles(300, noise=0.04, factor=0.4, random_state=0),
    )
    points, truth = made[shape]()
    x = torch.from_numpy(points).float()[None]
    assert metrics.adjusted_rand_score(truth, spectral_medoids(x, 2, **settings)[1][0]) >= 0.95
    assert metrics.adjusted_rand_score(truth, k_medoids(x, 2)[1][0]) < 0.5


@pytest.mark.parametrize('name', ['astronaut', 'coffee', 'chelsea', 'rocket'])
@pytest.mark.parametrize('k', [6, 8])
def test_agrees_with_scikit_learn_on_a_photograph(name, k):
    cluster, metrics = pytest.importorskip('sklearn.cluster'), pytest.importorskip('sklearn.metrics')
    x = patches(name)
    theirs = cluster.SpectralClustering(
        k, affinity='nearest_neighbors', n_neighbors=11, random_state=0, n_init=20
    ).fit_predict(x[0].double().numpy())
    ours = spectral_medoids(x, k, graph='knn', knn=10)[1][0]
    assert metrics.adjusted_rand_score(theirs, ours) >= 0.8


@pytest.mark.parametrize('k', [3, 49, 160])
@pytest.mark.parametrize('name', ['coffee', 'chelsea'])
def test_embeds_into_scikit_learns_subspace(name, k):
    """Whichever way points of one embedding are then put into clusters, the embedding is the same."""
    manifold = pytest.importorskip('sklearn.manifold')
    pairwise = pytest.importorskip('sklearn.metrics.pairwise')
    x = patches(name, 18).double()
    sigma = float(torch.cdist(x[0], x[0]).median()) / 2
    weights = pairwise.rbf_kernel(x[0].numpy(), gamma=1 / (2 * sigma**2))
    np.fill_diagonal(weights, 0)
    theirs = manifold.spectral_embedding(weights, n_components=k, drop_first=False, eigen_solver='arpack')
    # Theirs are divided by the roots of the degrees.
    theirs = torch.from_numpy(theirs * np.sqrt(weights.sum(axis=1))[:, None])
    theirs = torch.linalg.qr(theirs).Q
    near = ~torch.eye(x.shape[1], dtype=torch.bool)[None]
    ours = spectral._smallest_eigenvectors(spectral._heat(x, near, sigma), near.any(dim=2), k)[0]
    assert torch.linalg.svdvals(theirs.T @ ours).min() > 0.999


def test_both_solvers_find_the_same_subspace(monkeypatch):
    x = clustered(1, 300, 8).double()
    near = ~torch.eye(300, dtype=torch.bool)[None]
    affinity = spectral._heat(x, near, 2.0)
    some = spectral._smallest_eigenvectors(affinity, near.any(dim=2), 4)[0]
    every = torch.linalg.eigh(torch.eye(300) - affinity[0]).eigenvectors[:, :4]
    assert torch.allclose(some @ some.T, every @ every.T, atol=1e-8)
    monkeypatch.setitem(sys.modules, 'scipy.linalg', None)
    assert torch.allclose(
        spectral._smallest_eigenvectors(affinity, near.any(dim=2), 4)[0].abs(), every.abs(), atol=1e-12
    )


def test_eigenvectors_signs_and_basis_do_not_matter(monkeypatch):
    x = torch.randn(2, 60, 6)
    plain = spectral_medoids(x, 30)
    solve = spectral._smallest_eigenvectors

    def turned(affinity, linked, k):
        turn = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64)).Q
        return solve(affinity, linked, k) @ turn

    monkeypatch.setattr(spectral, '_smallest_eigenvectors', turned)
    for given, expected in zip(spectral_medoids(x, 30), plain):
        assert torch.equal(given, expected)


def test_far_apart_tokens_have_neighbours_still():
    """Where every exp(-d^2 / 2 sigma^2) is too small for a float, nearest points are linked all the same."""
    pairs = 1e3 * torch.randn(1, 20, 8).repeat_interleave(2, 1)
    x = pairs + torch.arange(40)[None, :, None] % 2 * 1e2
    medoids, labels = spectral_medoids(x, 20)
    assert torch.equal(labels[0], torch.arange(20).repeat_interleave(2))


def test_window_links_only_what_is_near():
    x = torch.zeros(1, 10, 3)
    x[0, 0, 0] = 1
    # Equal points in two places: by place alone do they fall apart.
    positions = torch.tensor([0, 1, 2, 3, 4, 20, 21, 22, 23, 24])[:, None]
    labels = spectral_medoids(x, 2, positions=positions, window=1)[1][0]
    assert labels[:5].unique().tolist() == [0] and labels[5:].unique().tolist() == [1]


def test_a_sample_does_not_depend_on_its_batch():
    x = torch.randn(4, 40, 5)
    together, alone = spectral_medoids(x, 20), spectral_medoids(x[1:2], 20)
    assert torch.equal(together[0][1:2], alone[0]) and torch.equal(together[1][1:2], alone[1])


@pytest.mark.parametrize('graph', spectral.GRAPHS)
@pytest.mark.parametrize('x', [torch.zeros(1, 6, 3), torch.ones(2, 6, 3), torch.full((1, 6, 3), float('nan'))])
@pytest.mark.parametrize('k', [1, 3, 6])
def test_equal_points_end_well(x, k, graph):
    medoids, labels = spectral_medoids(x, k, graph=graph)
    assert all(len(set(row.tolist())) == k for row in medoids)
    assert torch.equal(labels.gather(1, medoids), torch.arange(k).expand_as(medoids))


def as_published(x, k, sigma, knn=None):
    """CenterCLIP's steps, literally, on one sample: heat kernel, nearest neighbours, Laplacian and its SVD."""
    squared = (x[:, None] - x[None]).square().sum(dim=2)
    weights = torch.exp(-squared / (2 * sigma**2))
    if knn is not None:
        near = weights >= weights.topk(knn, dim=1).values[:, -1:]
        weights = weights * (near | near.T)
    degrees = weights.sum(dim=1)
    inverse = torch.diag(degrees**-0.5)
    laplacian = inverse @ (torch.diag(degrees) - weights) @ inverse
    rows = torch.linalg.svd(laplacian).U[:, -k:]
    return F.normalize(rows, dim=1)


@pytest.mark.parametrize('knn', [None, 10, 15])
@pytest.mark.parametrize('normalize, sigma', [(False, 4.0), (True, 0.5)])
def test_published_graphs(features, knn, normalize, sigma):
    """Points of one embedding are as far from each other as those of the other, whatever basis a solver gives."""
    x = features(31, (6, 7, 7, 16)).reshape(3, 98, 16)
    points = F.normalize(x, dim=2) if normalize else x
    settings = dict(graph='looped_heat') if knn is None else dict(graph='heat_knn', knn=knn)
    medoids, labels = spectral_medoids(x, 12, sigma=sigma, normalize=normalize, **settings)
    plain = spectral_medoids(x, 12, sigma=sigma, normalize=normalize, graph='heat' if knn is None else 'knn')[0]
    for i, sample in enumerate(points.double()):
        rows = as_published(sample, 12, sigma, knn)
        distances = spectral._rounded_distances(rows[None])
        expected = dense._choose_medoids(distances[0], x[i].norm(dim=1), 12)
        assert torch.equal(medoids[i], expected[0]) and torch.equal(labels[i], expected[1])
    assert not torch.equal(plain, medoids)


@pytest.mark.parametrize('value', [float('inf'), float('nan'), 1e30])
def test_a_point_that_is_not_finite_leaves_the_rest_as_it_is(value):
    x = clustered(1, 41, 6)
    x[0, 40] = value
    medoids, labels = spectral_medoids(x, 5, sigma=3.0)
    assert medoids[0, -1] == 40 and torch.equal(labels[0, :40], spectral_medoids(x[:, :40], 4, sigma=3.0)[1][0])


def test_half_precision_and_other_strides_measure_the_same():
    x = torch.randn(2, 35, 4).bfloat16()
    expected = spectral_medoids(x.float(), 5)[0]
    assert torch.equal(spectral_medoids(x, 5)[0], expected)
    assert torch.equal(spectral_medoids(x.transpose(1, 2).contiguous().transpose(1, 2), 5)[0], expected)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(k=0), 'k=0'),
        (dict(k=36), 'k=36'),
        (dict(graph='ring'), "'ring'"),
        (dict(sigma=0.0), 'sigma=0'),
        (dict(knn=5), 'knn=5'),
        (dict(graph='knn', knn=0), 'knn=0'),
        (dict(graph='looped_heat', knn=5), 'knn=5'),
        (dict(window=1), 'positions'),
        (dict(window=1, positions=torch.zeros(3, 2)), 'positions'),
        (dict(x=torch.randn(0, 3, 2)), 'B >= 1'),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        spectral_medoids(**(dict(x=torch.randn(2, 35, 4), k=3) | change))
