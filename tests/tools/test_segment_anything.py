"""Segment Anything on photographs, as a user runs it."""

import json

import cv2
import numpy as np
import pytest
import torch
import transformers
from sam_models import sam, sam2

import fewtokens
from fewtokens.measure import segment_anything
from fewtokens.openmmlab.registry import parse_plugin

PLUGIN = 'SharedUpdate(after=2, grid=3)'


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Folders with a model each, and one with none for masks."""
    folder = tmp_path_factory.mktemp('models')
    sizes = dict(size=dict(longest_edge=72), pad_size=dict(height=72, width=72))
    sizes |= dict(mask_size=dict(longest_edge=36), mask_pad_size=dict(height=36, width=36))
    given = dict(Sam=sam('Sam'), SamHQ=sam('SamHQ'), Sam2=sam2())
    for name, model in given.items():
        for each in model.mask_decoder.output_hypernetworks_mlps:
            # Sharp masks, which automatic ones must be.
            each.proj_out.weight.data *= 1e6
            each.proj_out.bias.data *= 1e6
        model.save_pretrained(folder / name)
        processor = transformers.SamImageProcessor(**sizes)
        if name == 'Sam2':
            processor = transformers.Sam2ImageProcessor(size=dict(height=96, width=96))
        processor.save_pretrained(folder / name)
    transformers.ViTConfig().save_pretrained(folder / 'ViT')
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {'wide.png': (60, 90), '<tall>.jpg': (80, 50)}.items():
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.mark.parametrize('name', ['Sam', 'SamHQ', 'Sam2'])
def test_masks_of_the_full_model_and_of_a_plugin(run, models, pictures, tmp_path, name):
    out = tmp_path / 'out'
    options = ['--pictures', pictures, '--points', 3, '--min-score', -10, '--rounds', 1, '--out', out]
    plugins = ['SharedUpdate(after=5, grid=4)', 'AvgPool(after=2, grid=(2, 3))']
    plugins = plugins if name == 'Sam2' else [PLUGIN, 'AvgPool(after=5, grid=(4, 3))']
    options += [part for plugin in plugins for part in ('--plugin', plugin)]
    result = run('segment_anything.py', models / name, *options)
    assert result.returncode == 0, result.err
    assert '18 of 18 prompts compared' in result.out and 'IoU of the same output' in result.out
    figures = json.loads((out / 'figures.json').read_text())
    full, shared, pooled = figures['rows']
    assert full['metrics'] == {'mask IoU': 100, 'IoU of the same output': 100, 'automatic IoU': 100}
    for row in (shared, pooled):
        assert all(0 < value <= 100 for value in row['metrics'].values()) and row['metrics']['mask IoU'] < 100
        assert row['macs'] < full['macs'] and row['ms'] > 0 and row['metrics'].keys() == full['metrics'].keys()
    assert figures['environment']['prompts'] == 18 and figures['environment']['pictures'] == 2
    drawn = cv2.imread(str(out / 'wide.png.jpg'))
    assert drawn.shape == (384, 4 * 576, 3) and len(list(out.iterdir())) == 3
    photograph, masks = drawn[:, :576].astype(int), drawn[:, 576:1152].astype(int)
    assert np.abs(photograph - masks).mean() > 5


def test_few_masks_are_compared_where_the_model_scores_them_low(run, models, pictures, tmp_path):
    options = ['--pictures', pictures, '--points', 2, '--min-score', 1e6, '--rounds', 1, '--out', tmp_path / 'out']
    result = run('segment_anything.py', models / 'Sam', *options, '--plugin', PLUGIN, '--dtype', 'bfloat16')
    assert result.returncode == 0 and '0 of 8 prompts compared' in result.out, result.err
    assert [row['metrics'] for row in json.loads((tmp_path / 'out/figures.json').read_text())['rows']] == [{}, {}]


def test_speed_with_random_weights(run, monkeypatch, tmp_path):
    tiny = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, global_attn_indexes=[1, 3], patch_size=64)
    monkeypatch.setitem(segment_anything.SIZES, 'base', tiny)
    result = run('segment_anything.py', 'base', '--rounds', 1, '--out', tmp_path / 'out', '--plugin', PLUGIN)
    assert result.returncode == 0, result.err
    rows = json.loads((tmp_path / 'out/figures.json').read_text())['rows']
    assert [row['name'] for row in rows] == ['host + sdpa', PLUGIN]
    assert all(row['speedup'] > 0 and row['macs'] > 0 for row in rows)
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['figures.json']


def test_settings_without_any_given():
    with torch.device('meta'):
        huge, base = (segment_anything.random_encoder(size) for size in ('huge', 'base'))
        second = sam2().vision_encoder
    published = [(18, 11), (14, 10), (8, 10), (8, 9), (6, 9)]
    named = segment_anything.default_plugins(huge)
    assert named[:5] == [f'Hourglass(after={after}, grid={side})' for after, side in published]
    assert named[5:] == [f'SharedUpdate(after={after}, grid={side})' for after, side in ((14, 10), (8, 10), (6, 9))]
    assert segment_anything.default_plugins(base)[4] == 'Hourglass(after=2, grid=9)'
    for text in segment_anything.default_plugins(second):
        fewtokens.attach(second, parse_plugin(text)).remove()


@pytest.mark.parametrize(
    'model, options, message',
    [
        ('nothing', [], "'nothing' is no model: a folder or a name at Hugging Face, such as facebook/sam-vit-huge"),
        ('ViT', [], "is a model of type 'vit': sam, sam_hq, sam2, sam2_video are known"),
        ('Sam', ['--plugin', 'Hourglass(after=2, grid=5)'], 'grid=(5, 5) must be at most (4, 4)'),
        ('Sam', ['--plugin', 'Shared(after=1)'], "'Shared'"),
        ('Sam', ['--pictures', 'none'], "there is no folder 'none'"),
        ('Sam', ['--points', '0'], '0 must be at least 1'),
        ('large', ['--pictures', '.'], 'random weights, whose masks say nothing: leave --pictures out'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(fails, monkeypatch, models, tmp_path, model, options, message):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    given = model if model in ('large', 'nothing') else models / model
    fails('segment_anything.py', given, *options, '--out', tmp_path / 'out', message=message)
    assert not (tmp_path / 'out').exists()


def test_masks_are_matched_with_the_most_similar():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, :2], masks[1, :, :2] = True, True
    others = np.zeros((2, 4, 4), bool)
    others[0, :, :3], others[1, 0] = True, True
    numbers, found = segment_anything.match(masks, others)
    assert numbers.tolist() == [1, 0, -1]
    np.testing.assert_allclose(found, [4 / 8, 8 / 12, 0])
    assert segment_anything.match(masks, others[:0])[1].tolist() == [0, 0, 0]
    one, other = torch.from_numpy(masks[[0, 2]]), torch.from_numpy(masks[[1, 2]])
    assert segment_anything.overlaps(one, other).tolist() == pytest.approx([4 / 12, 1.0])
