import numpy as np
import pytest

from fewtokens.video.sampling import WAYS, candidate_frames, pick, sample_frames


def test_one_frame_a_second():
    assert candidate_frames(132, 25).tolist() == [0, 25, 50, 75, 100, 125]
    assert candidate_frames(120, 30000 / 1001).tolist() == [0, 30, 60, 90]
    assert candidate_frames(10, 25).tolist() == [0]
    assert candidate_frames(9, 10, rate=3).tolist() == [0, 3, 7]
    assert candidate_frames(5, 2, rate=8).tolist() == candidate_frames(5, 2, rate=None).tolist() == [0, 1, 2, 3, 4]


def test_published_choices():
    """CLIP4Clip: linspace over the candidates, or the first or last ones. CenterCLIP: int(tick / 2 + tick * i)."""
    assert pick(30, 12).tolist() == [int(v) for v in np.linspace(0, 29, 12)]
    assert pick(30, 4, 'head').tolist() == [0, 1, 2, 3]
    assert pick(30, 4, 'tail').tolist() == [26, 27, 28, 29]
    for n in range(13, 400, 7):
        assert pick(n, 12, 'segment').tolist() == [(2 * i + 1) * n // 24 for i in range(12)]
    assert pick(24, 12, 'segment').tolist() == [int(2 / 2.0 + 2 * i) for i in range(12)]


@pytest.mark.parametrize('how', WAYS)
def test_properties(how):
    draw = np.random.default_rng(0)
    for _ in range(300):
        n, fps = int(draw.integers(1, 500)), float(draw.uniform(0.3, 60))
        frames, rate = int(draw.integers(1, 20)), draw.choice([None, 0.5, 1.0, 3.0, 100.0])
        indices = sample_frames(n, fps, frames, how, rate, draw)
        candidates = candidate_frames(n, fps, rate)
        assert indices.dtype == np.int64
        assert len(indices) == min(frames, len(candidates)) >= 1
        assert (np.diff(indices) > 0).all() and 0 <= indices[0] and indices[-1] < n
        assert np.isin(indices, candidates).all()
        if how == 'uniform' and frames > 1:
            assert indices[0] == candidates[0] and indices[-1] == candidates[-1]


def test_random_takes_one_of_each_part_and_reaches_all():
    draw = np.random.default_rng(0)
    seen = np.stack([pick(31, 5, 'random', draw) for _ in range(400)])
    edges = [31 * i // 5 for i in range(6)]
    for part in range(5):
        assert set(seen[:, part]) == set(range(edges[part], edges[part + 1]))


@pytest.mark.parametrize('n', [13, 23, 24, 31, 400])
def test_tsn_takes_one_of_each_whole_part_and_never_the_rest(n):
    """CenterCLIP's training: i * (n // frames) + randint(n // frames)."""
    draw = np.random.default_rng(0)
    seen = np.stack([pick(n, 12, 'tsn', draw) for _ in range(1000)])
    length = n // 12
    for part in range(12):
        assert set(seen[:, part]) == set(range(part * length, (part + 1) * length))
    assert pick(12, 12, 'tsn').tolist() == list(range(12)) and pick(5, 12, 'tsn').tolist() == list(range(5))


def test_random_follows_the_seed():
    np.random.seed(3)
    first = sample_frames(1000, 10, how='random')
    second = sample_frames(1000, 10, how='random')
    np.random.seed(3)
    assert np.array_equal(first, sample_frames(1000, 10, how='random')) and not np.array_equal(first, second)


@pytest.mark.parametrize(
    'call, message',
    [
        (dict(n_frames=0, fps=25), 'n_frames 0'),
        (dict(n_frames=5, fps=0), 'fps 0'),
        (dict(n_frames=5, fps=25, rate=-1), 'rate -1'),
        (dict(n_frames=5, fps=25, frames=0), 'frames 0'),
        (dict(n_frames=5, fps=25, how='dense'), "'dense' must be one of uniform"),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(ValueError, match=message):
        sample_frames(**call)
