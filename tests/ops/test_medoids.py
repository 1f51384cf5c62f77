import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fewtokens.ops import dense, k_medoids, medoids

EXACT = [dict(exact=True), dict(exact=True, normalize=True), dict(p=1.0), dict(p=3.0), dict(metric='cosine')]
"""What measures exactly, whatever the device."""


@pytest.mark.parametrize('name', ['kmedoids21', 'kmedoids23', 'kmedoids26'])
@pytest.mark.parametrize('op', [k_medoids, dense.k_medoids])
def test_published_medoids(golden, features, name, op):
    meta, stored = golden[name]
    x = features(meta['seed'], meta['shape']).reshape(meta['batch'], -1, meta['shape'][3])
    chosen, labels = op(x, meta['k'], p=meta['p'], normalize=meta['normalize'])
    assert torch.equal(chosen, stored['medoids'].long()) and torch.equal(labels, stored['labels'].long())


@pytest.mark.parametrize('settings', [dict(), dict(normalize=True), *EXACT])
@pytest.mark.parametrize('n, k', [(1, 1), (7, 3), (50, 50), (61, 8), (140, 30)])
def test_batched_equals_dense(settings, n, k):
    x = torch.randn(3, n, 6, dtype=torch.float64)
    for given, expected in zip(k_medoids(x, k, **settings), dense.k_medoids(x, k, **settings)):
        assert torch.equal(given, expected)


def test_the_published_batched_form_picks_the_same(features):
    x = features(7, (6, 7, 7, 64)).reshape(3, 98, 64)
    for given, expected in zip(k_medoids(x, 49), dense.k_medoids_at_once(x, 49)):
        assert torch.equal(given, expected)


@pytest.mark.parametrize('settings', EXACT)
def test_of_two_in_a_cluster_the_first_is_the_medoid(settings):
    x = torch.randn(3, 70, 48).repeat_interleave(2, dim=1) + 0.1 * torch.randn(3, 140, 48)
    x *= 1 + torch.rand(3, 140, 1)
    chosen, labels = k_medoids(x, 70, **settings)
    assert (labels[:, ::2] == labels[:, 1::2]).float().mean() > 0.9
    for medoid_of, label in zip(chosen, labels):
        for cluster, medoid in enumerate(medoid_of):
            members = (label == cluster).nonzero()[:, 0]
            assert len(members) != 2 or medoid == members[0]


@pytest.mark.parametrize('settings', EXACT)
def test_of_equal_points_the_first_is_the_medoid(settings):
    """A video that stands still: three frames of 40 patches."""
    x = torch.randn(2, 40, 64).repeat(1, 3, 1)
    for k in (13, 40):
        assert k_medoids(x, k, **settings)[0].max() < 40


@pytest.mark.parametrize('settings', EXACT)
def test_distances_are_symmetric_and_nothing_between_equals(settings):
    x = torch.nn.functional.normalize(torch.randn(2, 150, 96), dim=2)
    x[:, 7], x[:, 8] = x[:, 120], 0
    settings = dict(dict(metric='euclidean', p=2.0, exact=False), **settings)
    distances = medoids._pairwise_distances(x, settings['metric'], settings['p'], settings['exact'])
    assert torch.equal(distances, distances.mT) and not distances.diagonal(dim1=1, dim2=2).any()
    assert torch.equal(distances[:, 7], distances[:, 120]) and not distances[:, 7, 120].any()


@pytest.mark.parametrize('settings', EXACT)
def test_distances_in_other_parts_are_the_same(settings, monkeypatch):
    x = torch.randn(5, 150, 48)
    settings = settings.get('metric', 'euclidean'), settings.get('p', 2.0), True
    expected = medoids._pairwise_distances(x, *settings)
    monkeypatch.setattr(medoids, '_ROWS', 512)
    monkeypatch.setattr(medoids, '_AT_ONCE', 2 * 150 * 150)
    torch.testing.assert_close(medoids._pairwise_distances(x, *settings), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize('settings', EXACT)
def test_a_batch_and_threads_do_not_matter_where_distances_are_exact(settings):
    x = torch.randn(5, 98, 64)
    together, threads = k_medoids(x, 49, **settings), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        for given, expected in zip(k_medoids(x[3:4], 49, **settings), together):
            assert torch.equal(given, expected[3:4])
    finally:
        torch.set_num_threads(threads)


def test_stops_when_no_medoid_moves(features, monkeypatch):
    """Rounding leaves a distance between a point and itself: it must not keep the rounds going."""
    rounds = []
    update = medoids._best_members
    monkeypatch.setattr(medoids, '_best_members', lambda *args: rounds.append(1) or update(*args))
    k_medoids(features(1, (2, 14, 14, 256)), 60)
    assert len(rounds) < 10


@pytest.mark.parametrize('metric', ['euclidean', 'cosine'])
def test_without_waiting_the_same_are_picked(metric):
    x = torch.randn(4, 40, 5)
    for given, expected in zip(k_medoids(x, 20, metric, max_iters=20, wait=False), k_medoids(x, 20, metric)):
        assert torch.equal(given, expected)


@pytest.mark.parametrize('settings', [dict(), dict(p=1.0), dict(metric='cosine'), dict(normalize=True)])
def test_nothing_is_read_back_without_waiting(settings):
    with FakeTensorMode():
        x = torch.randn(4, 40, 5, device='cuda')
        medoids, labels = k_medoids(x, 20, max_iters=3, wait=False, **settings)
        assert medoids.shape == (4, 20) and labels.shape == (4, 40) and labels.device.type == 'cuda'


def test_costs_are_counted_on_the_meta_device():
    medoids, labels = k_medoids(torch.randn(4, 40, 5, device='meta'), 20)
    assert medoids.shape == (4, 20) and labels.shape == (4, 40)


def test_a_sample_does_not_depend_on_its_batch():
    x = torch.randn(4, 40, 5)
    together = k_medoids(x, 20)
    alone = k_medoids(x[1:2], 20)
    assert torch.equal(together[0][1:2], alone[0]) and torch.equal(together[1][1:2], alone[1])


@pytest.mark.parametrize('x', [torch.zeros(1, 6, 3), torch.ones(2, 6, 3), torch.full((1, 6, 3), float('nan'))])
@pytest.mark.parametrize('k', [1, 3, 6])
def test_equal_points_end_well(x, k):
    chosen, labels = k_medoids(x, k)
    assert all(len(set(row.tolist())) == k for row in chosen)
    assert torch.equal(labels.gather(1, chosen), torch.arange(k).expand_as(chosen))


def test_a_point_that_is_not_finite_ends_well():
    x = torch.randn(2, 35, 4)
    x[0, 3] = float('inf')
    chosen, _ = k_medoids(x, 5)
    assert (chosen.diff() > 0).all()


def test_half_precision_measures_in_float32():
    x = torch.randn(2, 35, 4).bfloat16()
    assert torch.equal(k_medoids(x, 5)[0], k_medoids(x.float(), 5)[0])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(k=0), 'k=0'),
        (dict(k=36), 'k=36'),
        (dict(metric='l1'), "'l1'"),
        (dict(p=0.0), 'p=0'),
        (dict(x=torch.randn(0, 3, 2)), 'B >= 1'),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        k_medoids(**(dict(x=torch.randn(2, 35, 4), k=3) | change))
