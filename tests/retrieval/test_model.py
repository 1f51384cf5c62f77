import copy
import json
import logging
import pathlib

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch.nn import functional as F

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.model import build_model
from fewtokens.retrieval.model import ClipPreprocessor, ClipRetrieval

CLIP = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=8, layers=3, width=32, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=2),
)
CLUSTERING = dict(type='SegmentClustering', segments=2, clusters=5)


def make(**options) -> ClipRetrieval:
    torch.manual_seed(0)
    return MODELS.build(dict(type='ClipRetrieval', clip=dict(config=CLIP), **options))


def clips(*lengths: int, seed: int = 0, size: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8) for n in lengths]


def batch(*lengths: int, texts: int = 1) -> dict:
    samples = [
        BaseDataElement(texts=[f'a dog {i} {j}' for j in range(texts)], video_id=f'v{i}') for i in range(len(lengths))
    ]
    return dict(inputs=clips(*lengths), data_samples=samples)


def test_preprocessor_is_clips_own():
    (clip,) = clips(3)
    out = ClipPreprocessor()(dict(inputs=[clip]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    torch.testing.assert_close(out['inputs'][0], (clip / 255 - mean) / std)
    assert out['mask'] is None and out['data_samples'] is None


def test_preprocessor_pads_short_clips():
    given = clips(3, 1)
    out = ClipPreprocessor()(dict(inputs=given))
    assert out['inputs'].shape == (2, 3, 3, 32, 32)
    assert out['mask'].tolist() == [[True] * 3, [True, False, False]]
    torch.testing.assert_close(out['inputs'][1, :1], ClipPreprocessor()(dict(inputs=given[1:]))['inputs'][0])


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ([], 'one video at least'),
        ([*clips(2), *clips(2, size=16)], r'one size.*\(2, 3, 32, 32\), \(2, 3, 16, 16\)'),
        (clips(2, 0), r'a frame at least, got \(2, 3, 32, 32\), \(0, 3, 32, 32\)'),
    ],
)
def test_preprocessor_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        ClipPreprocessor()(dict(inputs=given))


@pytest.mark.parametrize('temporal', [None, dict(layers=2)])
@pytest.mark.parametrize('clustering', [None, CLUSTERING])
def test_modes_agree(clustering, temporal):
    model = make(clustering=clustering, after=1, temporal=temporal).eval()
    given = batch(4, 4, 3, texts=2)
    data = model.data_preprocessor(copy.deepcopy(given))
    with torch.no_grad():
        videos = model(data['inputs'], mask=data['mask'])
        samples = model.val_step(copy.deepcopy(given))
    assert videos.shape == (3, 16)
    torch.testing.assert_close(videos.norm(dim=1), torch.ones(3))
    for video, sample in zip(videos, samples):
        torch.testing.assert_close(sample.video_embedding, video)
        torch.testing.assert_close(sample.text_embeddings, model.encode_text(sample.texts))
    torch.testing.assert_close(model.encode_video(given['inputs']), videos)
    # A video's embedding does not depend on what it was padded to.
    torch.testing.assert_close(model.encode_video(given['inputs'][2:]), videos[2:])


def test_videos_are_mean_pooled_and_texts_cut():
    model = make(max_words=5).eval()
    (clip,) = clips(3)
    frames = F.normalize(model.clip.encode_image(model.data_preprocessor(dict(inputs=[clip]))['inputs'][0]), dim=1)
    torch.testing.assert_close(model.encode_video([clip])[0], F.normalize(frames.mean(0), dim=0))
    long, short = model.encode_text(['a cat sits on the mat', 'a cat sits'])
    torch.testing.assert_close(long, short)
    whole = make().eval()
    tokens = open_clip.SimpleTokenizer()(['a cat sits on the mat'], 12)
    torch.testing.assert_close(
        whole.encode_text(['a cat sits on the mat']), whole.clip.encode_text(tokens, normalize=True)
    )


def test_loss_is_the_literal_formula():
    model = make(clustering=CLUSTERING, after=1)
    given = batch(4, 4, 4)
    loss = model(**model.data_preprocessor(given), mode='loss')['loss']
    videos, texts = model.encode_video(given['inputs']), model.encode_text([s.texts[0] for s in given['data_samples']])
    logits = model.clip.logit_scale.exp() * videos @ texts.T
    diagonal = lambda m: -m.log_softmax(1).diagonal().mean()  # noqa: E731
    torch.testing.assert_close(loss, (diagonal(logits) + diagonal(logits.T)) / 2)


def test_logit_scale_stays_under_a_hundred():
    model = make()
    model.clip.logit_scale.data.fill_(7.0)
    model(**model.data_preprocessor(batch(1, 1)), mode='loss')
    assert model.clip.logit_scale.exp().item() == pytest.approx(100)


@pytest.mark.parametrize('clustering', [None, CLUSTERING])
def test_gradient_checkpointing_changes_nothing(clustering):
    gradients = []
    for checkpointing in (False, True):
        model = make(clustering=clustering, after=1, gradient_checkpointing=checkpointing)
        model(**model.data_preprocessor(batch(4, 4)), mode='loss')['loss'].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(g is not None for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_one_set_of_weights():
    names = make(temporal=dict(layers=1)).state_dict()
    assert {name.split('.')[1] for name in names} == {'clip', 'temporal'}


def test_several_clusterings():
    model = make(clustering=[CLUSTERING, dict(type='SegmentClustering', segments=1, clusters=3)], after=[0, 1]).eval()
    embeddings, mask = model.encoder.encode_frames(torch.randn(2, 4, 3, 32, 32))
    assert embeddings.shape == (2, 1, 16) and mask.all()


def test_clustering_as_a_text():
    one = make(clustering='SegmentClustering(segments=2, clusters=5, after=1)').encoder
    assert one.after == 1 and one.clustering.clusters == 5
    texts = ['SegmentClustering(segments=2, clusters=5, after=0)', 'SegmentClustering(segments=1, clusters=3, after=2)']
    assert make(clustering=texts).encoder.after == [0, 2]
    with pytest.raises(ValueError, match=r'after=\[1\] must have a number for each of 2'):
        make(clustering=[CLUSTERING, CLUSTERING], after=[1])


def test_pretrained_weights_are_loaded_for_training_alone(tmp_path):
    torch.manual_seed(1)
    other = open_clip.CLIP(**copy.deepcopy(CLIP))
    torch.save(other.state_dict(), tmp_path / 'clip.pt')
    clip = dict(config=CLIP, pretrained=str(tmp_path / 'clip.pt'))
    clustering = dict(segments=2, clusters=3, cluster_embedding='positions', width=other.visual.proj.shape[0])
    setting = dict(type='ClipRetrieval', clip=clip, temporal=dict(layers=1), clustering=clustering, after=0)
    model = MODELS.build(setting)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[f'encoder.clip.{name}'], value)
    assert not torch.equal(before['encoder.clip.visual.proj'], other.state_dict()['visual.proj'])
    assert torch.equal(model.encoder.clustering.cluster_embedding, other.visual.positional_embedding[1:4])
    attention = other.transformer.resblocks[0].attn
    assert torch.equal(model.encoder.temporal.layers[0].self_attn.in_proj_weight, attention.in_proj_weight)


def test_config_file_and_name(tmp_path):
    path = tmp_path / 'tiny.json'
    path.write_text(json.dumps(CLIP))
    assert make().state_dict().keys() == ClipRetrieval(dict(config=str(path))).state_dict().keys()
    with torch.device('meta'):
        model = ClipRetrieval(dict(name='ViT-B-32', quick_gelu=True), temporal=dict(layers=4))
    assert model.width == 512 and model.context_length == 77


def test_random_weights_on_purpose_are_no_warning(caplog):
    filters = list(logging.getLogger().filters)
    with torch.device('meta'):
        ClipRetrieval(dict(name='ViT-B-32', quick_gelu=True))
    assert not caplog.records and logging.getLogger().filters == filters
    # Other warnings still come, and open_clip's own where it is asked directly.
    with torch.device('meta'):
        open_clip.create_model('ViT-B-32', load_weights=False, device='meta')
    assert any('No pretrained weights' in record.message for record in caplog.records)


def test_builds_like_any_other_config():
    clip = dict(config=CLIP, pretrained='nowhere')
    model = build_model(Config(dict(model=dict(type='ClipRetrieval', clip=clip, clustering=CLUSTERING, after=1))))
    assert not model.training and model.encoder.clustering.clusters == 5


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(clip=dict(name='ViT-Z')), ValueError, "no model 'ViT-Z'; it has .*ViT-B-32"),
        (dict(clip=dict()), ValueError, 'a name.*or a config'),
        (dict(clip=dict(config='nowhere.json')), FileNotFoundError, "no model config 'nowhere.json'"),
        (dict(clip=dict(config=CLIP), clustering=dict(type='Kmeans')), ValueError, "no clustering 'Kmeans'"),
        (
            dict(clip=dict(config=CLIP), clustering=dict(type='SegmentClustering', cluster=3)),
            ValueError,
            "no option 'cluster'",
        ),
        (dict(clip=dict(config=CLIP), clustering=CLUSTERING, after=3), ValueError, 'after=3'),
        (dict(clip=dict(config=CLIP), max_words=13), ValueError, 'max_words 13 must be 3 to 12'),
    ],
)
def test_bad_settings(options, error, message):
    with pytest.raises(error, match=message):
        ClipRetrieval(**options)


def test_bad_input():
    model = make()
    with pytest.raises(ValueError, match='text 1 of 2 is empty'):
        model.encode_text(['a cat', ' '])
    assert model.encode_text([]).shape == (0, 16)
    data = model.data_preprocessor(batch(2, 2))
    with pytest.raises(ValueError, match="mode 'train' must be"):
        model(**data, mode='train')
    with pytest.raises(ValueError, match='2 videos need as many data samples, got none'):
        model(data['inputs'], mode='loss')
    with pytest.raises(ValueError, match='one caption a sample, got 2'):
        model(**model.data_preprocessor(batch(2, 2, texts=2)), mode='loss')
    with pytest.raises(ValueError, match='no file of weights'):
        ClipRetrieval(dict(config=CLIP, pretrained='nowhere')).init_weights()


@pytest.mark.parametrize(
    'content, reason',
    [
        ('text', 'is no checkpoint: it is text'),
        ('', 'is no checkpoint: it is empty'),
        ([torch.zeros(1)], 'holds no weights: it is of type list'),
        (dict(state_dict=None), 'holds no weights: its state_dict is None'),
        (dict(a=torch.zeros(1), args=pathlib.PurePosixPath('x')), 'it carries pathlib.'),
        (dict(a=torch.zeros(1)), 'does not fit the config'),
        (dict(logit_scale=torch.zeros(())), 'does not fit the config'),
        # Read for MMEngine's sake, but not by open_clip.
        (dict(state_dict=dict(a=torch.zeros(1)), log=HistoryBuffer()), 'does not fit the config: it carries mmengine.'),
    ],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_weights_of_something_else(tmp_path, content, reason, zipped):
    path = tmp_path / 'clip.pt'
    if isinstance(content, str):
        path.write_text(content)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f'clip.pt. {reason}|clip.pt. .*safely: {reason}') as error:
        ClipRetrieval(dict(config=CLIP, pretrained=str(path))).init_weights()
    assert 'weights_only' not in str(error.value) and '\n' not in str(error.value)
