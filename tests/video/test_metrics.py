import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from fewtokens.measure.resampling import interval_of_difference
from fewtokens.retrieval.metrics import RetrievalMetric
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


def samples(counts: list[int], width: int = 6) -> list[dict]:
    videos, texts = unit(len(counts), width), unit(sum(counts), width, seed=1)
    elements = []
    for index, (video, its_texts) in enumerate(zip(videos, texts.split(counts))):
        element = BaseDataElement(video_embedding=video, text_embeddings=its_texts)
        element.video_id = f'v{index}'
        elements.append(element.to_dict())
    return elements


@pytest.mark.parametrize('dual_softmax', [None, 0.05])
def test_metric_equals_the_function_whatever_the_chunk(dual_softmax):
    counts = [1, 3, 2, 0, 4, 1, 1]
    given = samples(counts)
    owners = [index for index, count in enumerate(counts) for _ in range(count)]
    similarity = torch.cat([s['text_embeddings'] for s in given]) @ torch.stack([s['video_embedding'] for s in given]).T
    expected = retrieval_metrics(similarity, owners, dual_softmax)
    for chunk in (1, 3, 100):
        metric = RetrievalMetric(dual_softmax=dual_softmax, chunk=chunk)
        metric.process(None, given[:4])
        metric.process(None, given[4:])
        assert metric.evaluate(len(given)) == pytest.approx(expected)


def test_metric_puts_the_captions_of_a_video_together():
    whole, parts = RetrievalMetric(), RetrievalMetric()
    given = samples([3, 2, 2])
    whole.process(None, given)
    pairs = [{**s, 'text_embeddings': text[None]} for s in given for text in s['text_embeddings']]
    parts.process(None, pairs)
    assert parts.evaluate(len(pairs)) == whole.evaluate(len(given))


def test_metric_drops_what_a_sampler_padded():
    given = samples([1, 1, 1])
    metric, padded = RetrievalMetric(), RetrievalMetric()
    metric.process(None, given)
    padded.process(None, [*given, given[0]])
    assert padded.evaluate(3) == metric.evaluate(3)


def test_statistics_give_the_metric_again_for_any_draw_of_videos():
    counts = [1, 3, 2, 0, 4, 1, 1]
    given = samples(counts)
    metric = RetrievalMetric()
    metric.process(None, given)
    metrics = metric.evaluate(len(given))
    drawn = np.array([[1] * 7, [0, 2, 0, 0, 3, 1, 1]])
    texts, videos = torch.cat([s['text_embeddings'] for s in given]), torch.stack([s['video_embedding'] for s in given])
    owners = np.repeat(np.arange(7), counts)
    first = np.array(owners == (texts @ videos.T).argmax(1).numpy())
    weights = drawn[1][owners]
    recalls = metric.statistics['R@1'].headline(drawn)
    assert recalls == pytest.approx([metrics['R@1'], 100 * (weights * first).sum() / weights.sum()])
    back = owners[(videos @ texts.T).argmax(1)] == np.arange(7)
    asked = drawn[1] * (np.array(counts) > 0)
    recalls = metric.statistics['v2t/R@1'].headline(drawn)
    assert recalls == pytest.approx([metrics['v2t/R@1'], 100 * (asked * back).sum() / asked.sum()])


def test_interval_of_a_difference_that_every_video_has():
    right, wrong = RetrievalMetric(), RetrievalMetric()
    videos = torch.eye(9)
    right.process(None, [dict(video_id=i, video_embedding=v, text_embeddings=v[None]) for i, v in enumerate(videos)])
    shifted = zip(videos, videos.roll(1, 0))
    wrong.process(
        None, [dict(video_id=i, video_embedding=v, text_embeddings=t[None]) for i, (v, t) in enumerate(shifted)]
    )
    right.evaluate(9), wrong.evaluate(9)
    for name in ('R@1', 'v2t/R@1'):
        assert interval_of_difference(right.statistics[name], wrong.statistics[name]) == (100, 100)
        assert interval_of_difference(right.statistics[name], right.statistics[name]) == (0, 0)


def test_equal_embeddings_score_chance_whatever_the_chunk():
    same = unit(1, 512)[0]
    metric = RetrievalMetric(chunk=3)
    metric.process(None, [dict(video_id=str(i), video_embedding=same, text_embeddings=same[None]) for i in range(37)])
    metrics = metric.evaluate(37)
    assert metrics['R@1'] == metrics['v2t/R@1'] == pytest.approx(100 / 37)


def test_metric_says_what_is_missing():
    with pytest.raises(ValueError, match="'v' has no video_embedding"):
        RetrievalMetric().process(None, [dict(video_id='v')])
    with pytest.raises(ValueError, match=r'\(3,\) and text_embeddings \(2, 4\)'):
        RetrievalMetric().process(
            None, [dict(video_id='v', video_embedding=torch.zeros(3), text_embeddings=torch.zeros(2, 4))]
        )
    metric = RetrievalMetric()
    metric.process(None, samples([0, 0]))
    with pytest.raises(ValueError, match='none of the 2 videos has a caption'):
        metric.evaluate(2)
