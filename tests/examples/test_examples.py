"""The examples as a user runs them, on small models."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import transformers
from sam_models import sam
from videos import moving_frames, write_video

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs/demo'


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs an example in a folder of its own; what it wrote."""

    def example(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        runpy.run_path(str(ROOT / 'examples' / name), run_name='__main__')
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    return example


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / 'cat.png'), skimage.data.chelsea()[..., ::-1])
    return tmp_path / 'cat.png'


def folder_of_a_dinov2(path):
    from transformers import Dinov2Config, Dinov2Model

    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=112, patch_size=14)
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize('library', ['timm', 'transformers'])
def test_features_as_colours(run, picture, tmp_path, library):
    model = 'vit_tiny_patch16_224' if library == 'timm' else folder_of_a_dinov2(tmp_path / 'model')
    out = run('dino_features.py', picture, '--model', model, '--random', '--size', 112, '--after', 1, 2, '--keep', 0.4)
    assert 'passes with fewer tokens: 2' in out and 'times as fast, cosine 0.9' in out
    drawn = cv2.imread('features.png')
    # Beside the picture are two maps of equal colours for equal features.
    assert drawn.shape == (112, 336, 3) and abs(drawn[:, 112:224].astype(int) - drawn[:, 224:]).mean() < 40


def test_a_mask(run, picture, tmp_path):
    sizes = dict(size=dict(longest_edge=72), pad_size=dict(height=72, width=72))
    sizes |= dict(mask_size=dict(longest_edge=36), mask_pad_size=dict(height=36, width=36))
    sam().save_pretrained(tmp_path / 'model')
    transformers.SamImageProcessor(**sizes).save_pretrained(tmp_path / 'model')
    out = run('segment_anything.py', tmp_path / 'model', picture, '--after', 2, '--grid', 3)
    assert 'passes with fewer tokens: 1' in out and 0 <= float(out.partition('of the masks ')[2].split()[0]) <= 1
    assert cv2.imread('masks.png').shape == (300, 3 * 451, 3)


def test_a_segmenter(run, picture):
    config, checkpoint = 'segmenter_scenes-256x256.py', 'segmenter_scenes.pth'
    out = run('segment_picture.py', DEMO / config, DEMO / checkpoint, picture)
    assert 'times as fast' in out and float(out.partition('as fast, ')[2].partition('%')[0]) > 70
    assert cv2.imread('segmented.png').shape == (300, 3 * 451, 3)


def test_videos_by_a_text(run, tmp_path):
    for seed in (1, 2):
        write_video(tmp_path / f'{seed}.mp4', moving_frames(8, seed=seed))
    out = run('search_videos.py', tmp_path, 'a red square', '--pretrained', 'none', '--frames', 4).splitlines()
    assert sorted(line.split()[1] for line in out) == ['1.mp4', '2.mp4']
    scores = [float(line.split()[0]) for line in out]
    assert scores == sorted(scores, reverse=True) and np.abs(scores).max() <= 1
