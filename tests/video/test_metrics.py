import numpy as np
import pytest
import torch

from fewtokens.video import retrieval_metrics

HAND = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.8, 0.5], [0.7, 0.6, 0.4]])
"""Ranks of the right one: text to video 1, 1, 3; video to text 1, 1, 2."""


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_by_hand():
    metrics = retrieval_metrics(HAND)
    assert list(metrics)[0] == 'R@1'
    expected = {'R@1': 200 / 3, 'R@5': 100, 'R@10': 100, 'R@50': 100, 'MedR': 1, 'MeanR': 5 / 3}
    expected |= {
        'v2t/R@1': 200 / 3,
        'v2t/R@5': 100,
        'v2t/R@10': 100,
        'v2t/R@50': 100,
        'v2t/MedR': 1,
        'v2t/MeanR': 4 / 3,
    }
    assert metrics == pytest.approx(expected)


def test_several_captions_by_hand():
    # Texts 0 and 1 are of video 0, text 2 of video 1. Ranks of texts: 2, 1, 1. Groups of texts for video 0: 0.5 and
    # 0.9, so 2; for video 1: 0.6 and 0.95, so 1.
    similarity = torch.tensor([[0.4, 0.6], [0.5, 0.1], [0.9, 0.95]])
    metrics = retrieval_metrics(similarity, [0, 0, 1])
    assert metrics['R@1'] == pytest.approx(200 / 3) and metrics['MeanR'] == pytest.approx(4 / 3)
    assert metrics['v2t/R@1'] == 50 and metrics['v2t/MeanR'] == 1.5


@pytest.mark.parametrize('seed', range(3))
def test_against_sorting(seed):
    """The field's formula, written with argsort, where nothing is tied."""
    texts, videos = 60, 23
    similarity = np.random.default_rng(seed).standard_normal((texts, videos))
    owners = np.concatenate([np.arange(videos), np.random.default_rng(seed).integers(0, videos, texts - videos)])
    forth = [list(np.argsort(-similarity[t])).index(owners[t]) + 1 for t in range(texts)]
    grouped = np.stack([similarity[owners == v].max(0) for v in range(videos)])
    back = [list(np.argsort(-grouped[:, v])).index(v) + 1 for v in range(videos)]
    expected = {}
    for prefix, ranks in (('', np.array(forth)), ('v2t/', np.array(back))):
        expected |= {f'{prefix}R@{k}': 100 * (ranks <= k).mean() for k in (1, 5, 10, 50)}
        expected |= {f'{prefix}MedR': np.median(ranks), f'{prefix}MeanR': ranks.mean()}
    assert retrieval_metrics(torch.tensor(similarity), owners.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize('value', [0.0, 1.0, float('nan')])
@pytest.mark.filterwarnings('ignore:.*not numbers')
def test_a_constant_similarity_scores_chance(value):
    videos = 40
    metrics = retrieval_metrics(torch.full((2 * videos, videos), value), [*range(videos), *range(videos)])
    for prefix in ('', 'v2t/'):
        assert metrics[f'{prefix}R@1'] == pytest.approx(100 / videos)
        assert metrics[f'{prefix}R@10'] == pytest.approx(1000 / videos)
        assert metrics[f'{prefix}MedR'] == metrics[f'{prefix}MeanR'] == (videos + 1) / 2


def test_ties_are_the_mean_over_random_orders():
    similarity = torch.randint(0, 4, (30, 12), generator=torch.Generator().manual_seed(1)).double()
    owners = [*range(12)] * 2 + [*range(6)]
    noise = torch.Generator().manual_seed(2)
    shaken = [
        retrieval_metrics(similarity + 1e-6 * torch.rand(similarity.shape, generator=noise).double(), owners)
        for _ in range(400)
    ]
    metrics = retrieval_metrics(similarity, owners)
    # Four standard errors.
    for key, error in (('R@1', 1.0), ('R@5', 1.5), ('MeanR', 0.1)):
        assert np.mean([m[key] for m in shaken]) == pytest.approx(metrics[key], abs=error)
    # Noise favours the best of many texts: for groups, ties are tried with one text each.
    square = similarity[:12]
    shaken = [retrieval_metrics(square + 1e-6 * torch.rand(square.shape, generator=noise).double()) for _ in range(400)]
    assert np.mean([m['v2t/R@1'] for m in shaken]) == pytest.approx(retrieval_metrics(square)['v2t/R@1'], abs=2)


def test_nan_counts_as_less_and_is_told():
    similarity = HAND.clone()
    similarity[0, 0] = float('nan')
    with pytest.warns(UserWarning, match='1 similarities are not numbers'):
        metrics = retrieval_metrics(similarity)
    assert metrics['MeanR'] == pytest.approx((3 + 1 + 3) / 3)


def test_dual_softmax_is_reported_apart():
    similarity = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    plain, metrics = retrieval_metrics(similarity), retrieval_metrics(similarity, dual_softmax=0.1)
    assert {key: metrics[key] for key in plain} == plain
    assert {key for key in metrics if key not in plain} == {f'dsl/{key}' for key in plain}
    weighed = retrieval_metrics(similarity * (similarity / 0.1).softmax(0))
    back = retrieval_metrics(similarity * (similarity / 0.1).softmax(1))
    assert metrics['dsl/MeanR'] == pytest.approx(weighed['MeanR'])
    assert metrics['dsl/v2t/MeanR'] == pytest.approx(back['v2t/MeanR'])


@pytest.mark.parametrize(
    ('similarity', 'owners', 'message'),
    [
        (torch.zeros(0, 3), None, 'one of each'),
        (torch.zeros(3), None, 'texts, videos'),
        (torch.zeros(3, 2), None, 'video_of_text must say'),
        (torch.zeros(3, 2), [0, 1], 'one index for each'),
        (torch.zeros(3, 2), [0, 1, 2], 'must lie in 0 to 1'),
    ],
)
def test_bad_input(similarity, owners, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(similarity, owners)
