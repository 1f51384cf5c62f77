import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from fewtokens.measure.resampling import interval_of_difference
from fewtokens.retrieval.metrics import RetrievalMetric
from fewtokens.video import retrieval_metrics


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


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
