import dataclasses
import inspect

import pytest
import torch
from torch import nn

from fewtokens.openmmlab.registry import REDUCERS, as_setting, build_reducer, parse_plugin
from fewtokens.video import SegmentClustering
from fewtokens.video.clustered import VideoPlugin
from fewtokens.video.settings import ClusteringSettings, build_clustering, join_stages


def test_they_are_those_of_the_clustering_and_after():
    ours = [(option.name, option.default) for option in inspect.signature(ClusteringSettings).parameters.values()]
    theirs = [(option.name, option.default) for option in inspect.signature(SegmentClustering).parameters.values()]
    assert ours == [*theirs, ('after', 6)]


def test_they_are_built_into_a_clustering_and_read_from_it():
    options = dict(segments=2, clusters=5, algorithm='spectral', window=[1, 2], sigma=0.5, frame_embedding=4, width=8)
    settings = ClusteringSettings(**options, after=3)
    clustering = settings.build()
    assert isinstance(clustering, SegmentClustering) and clustering.window == (1, 2) and clustering.sigma == 0.5
    assert clustering.frame_embedding.shape == (4, 8) and clustering.cluster_embedding is None
    assert ClusteringSettings.of(clustering, 3) == settings and settings.learns
    learned = ClusteringSettings(segments=2, clusters=5, cluster_embedding=True, width=8)
    assert ClusteringSettings.of(nn.ModuleList([learned.build()]).to(torch.float16)[0], 6) == learned
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.segments = 3


@pytest.mark.parametrize(
    'text',
    [
        'SegmentClustering(segments=2, clusters=5, after=6)',
        "SegmentClustering(segments=2, clusters=5, algorithm='spectral', size_bias=True, window=(1, 2), after=3)",
        "SegmentClustering(segments=(4, 2), algorithm='pooling', after=(1, 2))",
        "SegmentClustering(algorithm='token_shift', after=(1, 2))",
    ],
)
def test_their_text_and_their_dict_are_read_as_the_same(text):
    plugin = parse_plugin(text)
    assert str(plugin) == text and hash(plugin) == hash(parse_plugin(text))
    assert build_reducer(as_setting(plugin)) == plugin == VideoPlugin.parse(text)
    assert parse_plugin(text.replace('(1, 2)', '[1, 2]')) == plugin


def test_the_registry_of_reducers_has_them():
    assert REDUCERS.get('SegmentClustering') is ClusteringSettings


def test_schedules():
    settings = ClusteringSettings(segments=(4, 2), clusters=5, after=[0, 1])
    assert settings.stages() == (
        ClusteringSettings(segments=4, clusters=5, after=0), ClusteringSettings(segments=2, clusters=5, after=1)
    )  # fmt: skip
    assert join_stages(settings.stages()) == (dataclasses.replace(settings, clusters=(5, 5)),)
    unlike = ClusteringSettings(segments=4, clusters=5), ClusteringSettings(segments=2, clusters=5, size_bias=True)
    assert join_stages(unlike) == unlike


@pytest.mark.parametrize(
    'setting, after, kind, places',
    [
        (dict(segments=2, clusters=5), 3, SegmentClustering, 3),
        (dict(segments=(2, 1), clusters=5), (0, 3), list, (0, 3)),
        ('SegmentClustering(segments=(2, 1), clusters=5, after=(0, 3))', 6, list, (0, 3)),
        ([dict(segments=2, clusters=5)], [3], list, [3]),
        ([dict(segments=2, clusters=5), 'SegmentClustering(segments=1, clusters=5, after=4)'], (0, 1), list, [0, 4]),
        (ClusteringSettings(segments=2, clusters=5, after=3), 6, SegmentClustering, 3),
        ((ClusteringSettings(segments=2, clusters=5, after=(0, 3)),), 6, list, [0, 3]),
    ],
)
def test_a_models_setting(setting, after, kind, places):
    clustering, built = build_clustering(setting, after)
    assert isinstance(clustering, kind) and built == places
    assert kind is not list or len(clustering) == len(places)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(segments=0, clusters=5), 'segments=0 must be a whole number'),
        (dict(segments=2, clusters=5, algorithm='k'), "algorithm='k' must be one of"),
        (dict(segments=(2, 1), clusters=5), 'must have after as a sequence too'),
        (dict(segments=2, clusters=5, after=()), 'must have after as a sequence too'),
        (dict(segments=(2, 1), clusters=(5, 5, 5), after=(0, 1)), 'as many of segments, clusters as of after, 2'),
        (dict(segments=(2, 0), clusters=5, after=(0, 1)), 'segments=0 must be a whole number'),
        (dict(segmens=2), "SegmentClustering has no option 'segmens'; its options are segments, clusters"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_reducer(dict(options, type='SegmentClustering'))


def test_the_place_in_a_model_is_the_models_own():
    with pytest.raises(ValueError, match="SegmentClustering has no option 'after' within a model"):
        build_clustering(dict(segments=2, clusters=5, after=3), 6)
