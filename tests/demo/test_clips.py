"""Captioned clips: what is drawn, what is said, what is written."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement

import demo.scenes.direction  # noqa: F401
from demo.scenes import captions, load_textures
from demo.scenes.clips import FILLS, FRAMES, MOTIONS, SHAPES, compose_clip, draw_group, render_clip, reverse_clip
from demo.scenes.msrvtt import REVERSED, describe, write_msrvtt
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.retrieval.datasets import MSRVTT
from fewtokens.retrieval.decode import open_video
from fewtokens.retrieval.model import ClipRetrieval
from fewtokens.video import SegmentClustering, retrieval_metrics

DEMO = Path(__file__).parents[2] / 'configs/demo'
NUMBERS = dict(a=1, two=2, three=3)


@pytest.fixture(scope='module')
def textures():
    return load_textures()


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp('clips')
    write_msrvtt(out, dict(training=3, validation=2, test=2), seed=1)
    return out


def read(caption):
    """(number, fill, shape) of every group that a caption names."""
    pattern = rf'\b(a|two|three) \w+ ({"|".join(FILLS)}) ({"|".join(SHAPES)})(?:e?s)?\b'
    return [(NUMBERS[number], fill, shape) for number, fill, shape in re.findall(pattern, caption)]


def shown(event):
    return [(len(group.places), group.fill, group.shape) for group in event.groups]


@pytest.mark.parametrize('kind', ['clips', 'events', 'order'])
def test_captions_name_what_is_described(kind):
    for number in range(40):
        for _, clip, texts in describe(kind, 'training', number):
            groups = [group for event in clip.events for group in shown(event)]
            for text in texts:
                assert Counter(read(text)) == Counter(groups)


def test_ordered_captions_tell_the_order():
    for number in range(40):
        (_, clip, (text,)), (_, back, (reverse,)) = describe('order', 'test', number)
        assert read(text) == [group for event in clip.events for group in shown(event)]
        assert read(reverse) == [group for event in back.events for group in shown(event)]
        told = [way for way in MOTIONS if way in text]
        assert told == [event.motion for event in clip.events if event.motion]
        assert read(text) != read(reverse) or told != [way for way in MOTIONS if way in reverse]


def test_no_frame_shows_all(textures):
    for seed in range(20):
        clip = compose_clip(np.random.default_rng(seed))
        for frame in range(FRAMES):
            assert sum(event.start <= frame < event.stop for event in clip.events) <= 1 < len(clip.events)


def test_things_are_drawn_where_and_when_they_are(textures):
    clip = compose_clip(np.random.default_rng(3))
    frames = render_clip(clip, textures)
    empty = render_clip(clip.__class__(clip.background, (), clip.seed), textures)
    inside = np.zeros(frames.shape[:3], bool)
    for event in clip.events:
        for frame in range(event.start, event.stop):
            for group in event.groups:
                inside[frame] |= draw_group(event, group, frame, 64)[0] > 0
    changed = (frames != empty).any(axis=3)
    assert not changed[~inside].any() and changed[inside].mean() > 0.95


def test_a_reverse_is_the_clip_backwards(textures):
    for number in range(6):
        (_, clip, _), (name, back, _) = describe('order', 'test', number)
        assert name == f'test{number}{REVERSED}'
        forth, other = render_clip(clip, textures), render_clip(back, textures)[::-1]
        # Places are rounded after a sum that is taken the other way.
        assert np.abs(forth.astype(int) - other).mean() < 0.5 and (forth[0] != forth[-1]).any()
        assert reverse_clip(back).background == clip.background


def test_depends_on_seed_split_and_number_alone(textures):
    first, again, other = (list(describe('clips', 'test', 5, seed)) for seed in (0, 0, 1))
    assert first == again and first != other and first != list(describe('clips', 'training', 5))
    np.testing.assert_array_equal(render_clip(first[0][1], textures), render_clip(again[0][1], textures))


def test_the_layout_is_read_by_the_data_set(written):
    splits = {split: MSRVTT(str(written), split) for split in ('train', 'val', 'test')}
    assert {split: len(data) for split, data in splits.items()} == dict(train=3, val=2, test=2)
    assert len(MSRVTT(str(written), 'train', pairs=True)) == 30
    sample = splits['test'][1]
    ((name, clip, texts),) = describe('clips', 'test', 1, seed=1)
    assert (sample['video_id'], sample['texts']) == (name, texts)
    frames = open_video(sample['video_path']).frames(range(FRAMES))
    drawn = render_clip(clip, load_textures())
    assert frames.shape == drawn.shape and np.abs(frames.astype(int) - drawn).mean() < 6


def test_writing_goes_on_where_it_was_interrupted(written, tmp_path):
    videos = {path.name: path.read_bytes() for path in (written / 'MSRVTT_Videos').iterdir()}
    lost = written / 'MSRVTT_Videos/training1.mp4'
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in lost.parent.iterdir()}
    write_msrvtt(written, dict(training=3, validation=2, test=2), seed=1)
    assert {path.name: path.read_bytes() for path in lost.parent.iterdir()} == videos
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    with pytest.raises(ValueError, match='has other clips'):
        write_msrvtt(written, dict(test=2), seed=2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind='films'), "kind 'films'"),
        (dict(counts=dict(test=-1)), 'at least 0'),
        (dict(counts=dict(best=1)), 'no split best'),
        (dict(size=65), 'size=65'),
        (dict(processes=0), 'processes=0'),
    ],
)
def test_bad_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_msrvtt(tmp_path / 'new', **{'counts': dict(test=1), **options})
    assert not (tmp_path / 'new').exists()


def test_the_shipped_tokenizer_is_the_one_that_is_written_beside_the_clips(written):
    shipped = json.loads((DEMO / 'clip_clips.json').read_text())['text_cfg']['tokenizer_kwargs']['bpe_path']
    assert gzip.decompress((written / 'captions.bpe.gz').read_bytes()) == gzip.decompress((DEMO / shipped).read_bytes())


def test_the_tokenizer_knows_every_word():
    config = json.loads((DEMO / 'clip_clips.json').read_text())
    tokenizer = open_clip.SimpleTokenizer(bpe_path=DEMO / config['text_cfg']['tokenizer_kwargs']['bpe_path'])
    assert tokenizer.vocab_size == config['text_cfg']['vocab_size']
    assert [len(tokenizer.encode(word)) for word in captions.vocabulary()] == [1] * len(captions.vocabulary())
    longest = max(
        len(tokenizer.encode(text))
        for number in range(300)
        for kind in ('clips', 'order')
        for _, _, texts in describe(kind, 'training', number)
        for text in texts
    )
    assert longest + 2 <= config['text_cfg']['context_length']


def test_the_model_takes_the_tokenizer_beside_its_config():
    model = ClipRetrieval(clip=dict(config=str(DEMO / 'clip_clips.json')))
    assert model.tokenize.vocab_size == model.clip.token_embedding.num_embeddings
    assert model.encode_text(['two large red rings, then a small starry cross']).shape == (1, 128)


CAPTIONS = ('a red ring moves upwards', 'a star, then a ring', 'a red ring moves downwards', 'a ring, then a star')


def direction(videos, texts, captions=CAPTIONS, names=('a', 'b-reversed', 'a-reversed', 'b')):
    metric = METRICS.build(dict(type='DirectionMetric'))
    samples = [
        BaseDataElement(video_id=name, video_embedding=video, text_embeddings=text[None], texts=[caption]).to_dict()
        for name, video, text, caption in zip(names, videos, texts, captions)
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_direction_metric():
    one_hot = torch.eye(4)
    assert direction(one_hot, one_hot) == dict(direction=100, direction_of_motion=100, order_of_events=100)
    assert direction(one_hot, one_hot[[2, 1, 0, 3]]) == dict(direction=50, direction_of_motion=0, order_of_events=100)
    assert direction(one_hot, one_hot[[2, 3, 0, 1]]) == dict(direction=0, direction_of_motion=0, order_of_events=0)
    assert direction(torch.ones(4, 4), one_hot) == dict(direction=50, direction_of_motion=50, order_of_events=50)
    assert direction(one_hot, one_hot, CAPTIONS[1:2] * 4) == dict(direction=100, order_of_events=100)
    metric = METRICS.build(dict(type='DirectionMetric'))
    sample = dict(video_id='a', video_embedding=one_hot[0], text_embeddings=one_hot[:1], texts=['a'])
    metric.process(None, [sample])
    with pytest.raises(ValueError, match='reverse'):
        metric.evaluate(1)


def render(kind, number, textures):
    """A held-out clip of twelve frames, and perhaps its reverse: ids, videos and captions."""
    drawn = list(describe(kind, 'test', number, seed=7))
    videos = [torch.from_numpy(render_clip(clip, textures)[1::2]).permute(0, 3, 1, 2) for _, clip, _ in drawn]
    return [(name, video, text) for (name, _, (text,)), video in zip(drawn, videos)]


def test_the_shipped_weights_find_clips(textures):
    """Among 40 clips that no training has seen; chance is 2.5."""
    model = build_model(load_config(DEMO / 'clip_clips.py'), str(DEMO / 'clip_clips.pth'), 'cpu').eval()
    _, clips, captions = zip(*(clip for number in range(40) for clip in render('clips', number, textures)))
    few = {
        (algorithm, counted): SegmentClustering(12, 24, algorithm, 'mean', size_bias=counted)
        for algorithm in ('kmedoids', 'spectral')
        for counted in (True, False)
    }
    with torch.inference_mode():
        texts = model.encode_text(captions)
        every, one = (model.encode_video(videos) for videos in (clips, [clip[:1] for clip in clips]))
        clustered = {}
        for settings, clustering in few.items():
            with model.encoder.using(clustering, 2):
                clustered[settings] = model.encode_video(clips)
    host = retrieval_metrics(texts @ every.T)['R@1']
    assert host > 70 and retrieval_metrics(texts @ one.T)['R@1'] < host - 15
    change = {settings: 1 - (videos * every).sum(dim=1).mean() for settings, videos in clustered.items()}
    for algorithm in ('kmedoids', 'spectral'):
        # One clip of the forty is 2.5 points.
        assert abs(retrieval_metrics(texts @ clustered[algorithm, True].T)['R@1'] - host) <= 5
        assert change[algorithm, True] < 0.015 and change[algorithm, True] < change[algorithm, False]
    assert change['kmedoids', True] < change['kmedoids', False] / 5


def test_the_shipped_weights_tell_the_order_of_events(textures):
    config = load_config(DEMO / 'clip_clips-seqtransf.py')
    model = build_model(config, str(DEMO / 'clip_clips-seqtransf.pth'), 'cpu').eval()
    names, clips, captions = zip(*(clip for number in range(20) for clip in render('order', number, textures)))
    with torch.inference_mode():
        texts = model.encode_text(captions)
        every = model.encode_video([clip[::2] for clip in clips])
        model.encoder.temporal = None
        pooled = model.encode_video([clip[::2] for clip in clips])
    assert direction(every, texts, captions, names)['order_of_events'] > 90
    assert direction(pooled, texts, captions, names)['order_of_events'] < 70
