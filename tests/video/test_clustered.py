import copy

import pytest
import torch
from torch import nn

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.registry import build_reducer, parse_plugin
from fewtokens.plugin import attach_plugin
from fewtokens.retrieval.model import ClipRetrieval
from fewtokens.video.clustered import VideoPlugin, own_clustering
from fewtokens.video.encoder import VideoEncoder

CLIP = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=8, layers=3, width=32, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
)
TEXT = 'SegmentClustering(segments=2, clusters=5, after=1)'
CLUSTERING = dict(type='SegmentClustering', segments=2, clusters=5)


def make(**options) -> ClipRetrieval:
    torch.manual_seed(0)
    return ClipRetrieval(dict(config=CLIP), **options).eval()


@torch.no_grad()
def test_on_and_off():
    model, video = make(), torch.randn(2, 4, 3, 32, 32)
    plain, clustered = model(video), make(clustering=CLUSTERING, after=1)(video)
    assert not torch.allclose(plain, clustered)
    names = list(model.state_dict())
    with attach_plugin(nn.Sequential(model), parse_plugin(TEXT)) as attachment:
        torch.testing.assert_close(model(video), clustered)
        assert list(model.state_dict()) == names
        assert attachment.passes == 1 and attachment.token_counts == (4 * 17, 2 * 6)
        assert attachment.input_shape == (2, 4, 3, 32, 32)
        assert TEXT in attachment.summary() and '68 tokens became 12' in attachment.summary()
        twin = copy.deepcopy(model)
    torch.testing.assert_close(model(video), plain)
    assert model.encoder.clustering is None and attachment.passes == 1
    torch.testing.assert_close(twin(video), clustered)


@torch.no_grad()
def test_takes_the_place_of_the_models_own():
    model, video = make(clustering=dict(CLUSTERING, clusters=7), after=0), torch.randn(1, 4, 3, 32, 32)
    own = model(video)
    with attach_plugin(model, build_reducer(dict(CLUSTERING, after=1))):
        torch.testing.assert_close(model(video), make(clustering=CLUSTERING, after=1)(video))
    torch.testing.assert_close(model(video), own)


@torch.no_grad()
def test_watches_the_models_own():
    model, video = make(clustering=CLUSTERING, after=1), torch.randn(1, 4, 3, 32, 32)
    expected = model(video)
    with own_clustering(model) as attachment:
        torch.testing.assert_close(model(video), expected)
    assert attachment.passes == 1 and 'segments=2, clusters=5' in str(attachment.reducer)
    torch.testing.assert_close(model(video), expected)
    assert own_clustering(make()) is None


@torch.no_grad()
def test_schedule():
    text = 'SegmentClustering(segments=(2, 1), clusters=(5, 3), after=(0, 1))'
    model = make()
    with attach_plugin(model, parse_plugin(text)) as attachment:
        model(torch.randn(1, 4, 3, 32, 32))
    assert attachment.token_counts == (68, 4)
    assert repr(parse_plugin(text)) == text


@torch.no_grad()
def test_images_reducers_reduce_each_frame():
    model = make()
    video = torch.randn(2, 3, 3, 32, 32)
    host = model(video)
    with attach_plugin(model, parse_plugin('SharedUpdate(after=1, grid=2)')) as attachment:
        given = model(video)
        (encoder,) = (module for module in model.modules() if isinstance(module, VideoEncoder))
        frames = encoder.visual(video.flatten(0, 1)).unflatten(0, (2, 3))
        assert attachment.passes == 2 and attachment.token_counts[1] == 4
    assert given.shape == host.shape and not torch.allclose(given, host, atol=1e-5)
    units = torch.nn.functional.normalize(frames, dim=2).mean(dim=1)
    torch.testing.assert_close(given, torch.nn.functional.normalize(units, dim=1))
    assert torch.equal(model(video), host)


@torch.no_grad()
def test_a_reducer_and_a_clustering_at_once_are_refused():
    model = make()
    with attach_plugin(model, parse_plugin(TEXT)), attach_plugin(model, parse_plugin('SharedUpdate(after=1, grid=2)')):
        with pytest.raises(ValueError):
            model(torch.randn(2, 3, 3, 32, 32))


def test_bad_plugins():
    with pytest.raises(ValueError, match='Linear has 0 video encoders'):
        attach_plugin(nn.Linear(1, 1), parse_plugin(TEXT))
    with pytest.raises(ValueError, match="no option 'segment'"):
        parse_plugin('SegmentClustering(segment=2)')
    with pytest.raises(ValueError, match='for videos SegmentClustering'):
        parse_plugin('SegmentClusterin(segments=2)')
    with pytest.raises(ValueError, match='after=3'):
        attach_plugin(make(), parse_plugin('SegmentClustering(segments=2, clusters=5, after=3)'))
    model = make()
    with attach_plugin(model, parse_plugin(TEXT)), pytest.raises(ValueError, match='attached already'):
        attach_plugin(model, parse_plugin(TEXT))
    learned = 'SegmentClustering(segments=2, clusters=5, cluster_embedding=True, width=32, after=1)'
    with pytest.raises(ValueError, match='embeddings to learn'):
        VideoPlugin.parse(learned).attach_to(make())
