"""What plugins do to features, as a user looks at it: models of OpenMMLab, timm and Hugging Face."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from models import randomize

PLUGINS = ['--plugin', 'SharedUpdate(1, 4)', '--plugin', 'AvgPool(1, 4)']


@pytest.fixture
def folder(scenes, tmp_path):
    """Two pictures of 64 x 64."""
    return shutil.copytree(scenes / 'images/validation', tmp_path / 'pictures')


def timm_model(tmp_path):
    import timm

    tiny = dict(img_size=64, depth=4, embed_dim=32, num_heads=2, num_classes=0)
    weights = tmp_path / 'weights.pth'
    torch.save(randomize(timm.create_model('vit_tiny_patch16_224', **tiny)).state_dict(), weights)
    options = [f'{name}={value}' for name, value in tiny.items()]
    shape = ['--shape', 96, 128]
    return [
        'timm::vit_tiny_patch16_224',
        '--checkpoint',
        weights,
        *shape,
        '--cfg-options',
        *options,
        'dynamic_img_size=True',
    ]


def transformers_model(tmp_path):
    import transformers

    tiny = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64)
    config = transformers.Dinov2Config(image_size=64, patch_size=16, **tiny)
    randomize(transformers.Dinov2Model(config)).save_pretrained(tmp_path / 'model')
    return [f'transformers::{tmp_path / "model"}', '--shape', 96, 128]


@pytest.fixture(params=['config', 'timm', 'transformers'])
def model(request, config_file, checkpoint, tmp_path):
    if request.param == 'config':
        return [config_file, '--checkpoint', checkpoint]
    return (timm_model if request.param == 'timm' else transformers_model)(tmp_path)


def test_a_page_of_any_model(run, model, folder, tmp_path):
    out = tmp_path / 'out'
    result = run('compare_features.py', model[0], folder, *PLUGINS, '--rounds', 1, '--out', out, *model[1:])
    assert result.returncode == 0, result.err
    figures = json.loads((out / 'features.json').read_text())
    full, shared, pooled = figures['rows']
    assert full['metrics']['cosine'] == pytest.approx(100, abs=1e-3)
    for row in (shared, pooled):
        assert 0 < row['metrics']['worst cosine'] <= row['metrics']['cosine'] < 99.99 and row['macs'] < full['macs']
    page = (out / 'report.html').read_text()
    pictures = figures['environment']['pictures']
    # Three rows in two lines for each picture, and two curves.
    assert page.count('<img') == 6 * pictures + 2 and 'Features by block' in page
    assert 'SharedUpdate(1, 4)' in result.out and str(out / 'report.html') in result.out
    sheet = cv2.imread(str(out / 'features.png'))
    assert sheet.shape[0] == 2 * 112 * pictures


def test_blocks_are_compared_one_by_one(model_features):
    full, reduced = model_features
    assert len(full.blocks) == len(reduced.blocks) == 4 and full.grid == (4, 4)
    assert [torch.equal(a, b) for a, b in zip(full.blocks, reduced.blocks)] == [True, True, False, False]
    assert full.clusters is None and reduced.clusters.shape == (4, 4) and full.map.shape == (4, 4, 32)
    from fewtokens.measure.features import agreement

    cosine, by_block = agreement(full, reduced)
    assert by_block[:2] == pytest.approx([1, 1]) and (by_block[2:] < 0.9999).all() and cosine < 0.9999


@pytest.fixture
def model_features():
    import timm

    import fewtokens
    from fewtokens.attach import only_host
    from fewtokens.measure.features import look
    from fewtokens.measure.macs import forward
    from fewtokens.measure.variants import Variant

    tiny = dict(img_size=64, depth=4, embed_dim=32, num_heads=2, num_classes=0)
    model = randomize(timm.create_model('vit_tiny_patch16_224', **tiny)).eval()
    variants = [Variant('full'), Variant('pooled', fewtokens.AvgPool(2, 2))]
    picture = torch.randn(1, 3, 64, 64)
    return [look(only_host(model), model, variant, picture, forward) for variant in variants]


def test_colours_are_the_pictures_own():
    from fewtokens.report.features import colours_of

    picture = np.random.RandomState(0).randint(0, 256, (5, 7, 3), np.uint8)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.1])
    given = ((picture / 255 - mean) / std).transpose(2, 0, 1)
    assert (colours_of(given, mean, std) == picture).all()


def test_what_is_wrong_is_named(fails, folder, config_file, checkpoint, tmp_path):
    named = ['--checkpoint', checkpoint]
    for args, message in (
        ([config_file, folder, *named], 'name what to compare'),
        ([config_file, folder, *named, '--plugin', 'AvgPool(1, 40)'], 'never takes effect'),
        ([f'transformers::{tmp_path / "none"}', folder, *PLUGINS], 'cannot be made'),
        ([f'transformers::{tmp_path / "none"}', folder, *named, *PLUGINS], 'has weights of its own'),
    ):
        fails('compare_features.py', *args, '--out', tmp_path / 'out', message=message)
        assert not (tmp_path / 'out').exists()
