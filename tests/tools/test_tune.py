"""Choosing settings, as a user does, on a clock of its own."""

import functools
import json
import shutil

import cv2
import models
import numpy as np
import pytest
import torch
from clocks import Clock

from fewtokens.cli import tune as tool
from fewtokens.measure import tune as tuning
from fewtokens.measure.recipes import Method
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.hook import plugin_lines
from fewtokens.plugin import text_of


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(tuning, 'SKETCHED', (1.3,))
    methods = (Method(tuning.METHODS[0].reducer),)
    monkeypatch.setattr(tool, 'tune', functools.partial(tuning.tune, clock=made, methods=methods))
    return made


@pytest.fixture
def folder(scenes, tmp_path):
    """Pictures of 64 x 64."""
    return shutil.copytree(scenes / 'images/validation', tmp_path / 'pictures')


def test_a_config_gets_its_plugin_line(run, clock, config_file, checkpoint, folder, tmp_path):
    args = [config_file, folder, '1.2x', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    first = run('tune.py', *args)
    assert first.returncode == 0, first.err
    assert 'methods and places at 1.2x' in first.err and '1 picture held out' in first.out
    assert 'one window of the sliding' not in first.out
    figures = json.loads((tmp_path / 'out/tune.json').read_text())
    assert 1.2 <= figures['chosen']['speedup']['value'] <= 1.26
    assert figures['environment']['weights'] == str(checkpoint) and figures['environment']['timed'] == 'a whole image'
    assert cv2.imread(str(tmp_path / 'out/tune.png')) is not None
    # What it prints works in the config.
    lines = [line.strip() for line in first.out.splitlines() if line.startswith('    custom_')]
    config_file.write_text(config_file.read_text() + '\n'.join(lines))
    (line,) = plugin_lines(load_config(config_file))
    assert line.sdpa and text_of(line.reducer) == figures['chosen']['plugin']
    tested = run('test.py', config_file, checkpoint, '--work-dir', tmp_path / 'work')
    assert tested.returncode == 0 and '64 tokens became' in tested.out + tested.err, tested.err
    # Run again it measures nothing.
    clock.calls.clear()
    again = run('tune.py', *args)
    assert again.returncode == 0 and first.out.endswith(again.out) and clock.calls == []


def write_weights(path, **options):
    import timm

    model = timm.create_model('vit_tiny_patch16_224', img_size=64, depth=4, embed_dim=32, num_heads=2, **options)
    models.randomize(model)
    torch.save(model.state_dict(), path)
    return path


TINY = ['--cfg-options', 'img_size=64', 'depth=4', 'embed_dim=32', 'num_heads=2', 'num_classes=3']


def test_a_model_of_timm_at_another_size(run, clock, folder, tmp_path):
    weights = write_weights(tmp_path / 'weights.pth', num_classes=3)
    (folder / 'broken.png').write_bytes(b'no picture')
    cv2.imwrite(str(folder / 'wide.png'), np.full((10, 300, 3), 200, np.uint8))
    args = ['timm::vit_tiny_patch16_224', folder, 'cosine >= 0.9', '--checkpoint', weights, '--shape', 96, 128]
    args += ['--out', tmp_path / 'out', *TINY, 'dynamic_img_size=True']
    refused = run('tune.py', *args)
    assert refused.returncode == 2 and 'broken.png is no readable picture; --skip-unreadable' in refused.err
    assert not (tmp_path / 'out').exists()
    result = run('tune.py', *args, '--skip-unreadable')
    assert result.returncode == 0 and '1 unreadable pictures left out: broken.png' in result.out, result.err
    figures = json.loads((tmp_path / 'out/tune.json').read_text())
    assert figures['chosen']['cosine']['low'] >= 0.9 and figures['environment']['shape'] == [96, 128]
    assert 'fewtokens.attach(model, fewtokens.GradualUpdate(' in result.out
    assert 'custom_hooks' not in result.out and 'use_sdpa' not in result.out


def test_what_is_wrong_is_named_at_once(fails, clock, config_file, checkpoint, folder, tmp_path):
    weights = write_weights(tmp_path / 'weights.pth', num_classes=0)
    vit, empty = 'timm::vit_tiny_patch16_224', tmp_path / 'empty'
    empty.mkdir()
    named = ['--checkpoint', weights]
    for args, message in (
        ([config_file, folder, 'quick', '--checkpoint', checkpoint], "target 'quick' must be a speed of more than 1x"),
        ([config_file, folder, '2x'], 'needs its weights to be compared: name them with --checkpoint'),
        ([config_file, folder, '2x', '--checkpoint', checkpoint, '--shape', 64, 64], '--shape is for models of timm'),
        ([config_file, empty, '2x', '--checkpoint', checkpoint], 'no pictures in'),
        ([config_file, tmp_path / 'none', '2x', '--checkpoint', checkpoint], 'there is no folder'),
        ([config_file, folder, '50x', '--checkpoint', checkpoint], '50x cannot be reached: the most that was measured'),
        (['timm::vit_tinny_patch16_224', folder, '2x', *named], 'the nearest are: vit_tiny_patch16_224'),
        ([vit, folder, '2x', *named, *TINY], 'is a checkpoint of another architecture'),
        ([vit, folder, '2x', *named, '--cfg-options', 'depht=4'], "does not take {'depht': 4}"),
        ([vit, folder, '2x', *named, *TINY[:-1], 'num_classes=0', '--shape', 60, 64], 'takes no pictures of 60 x 64'),
        (['timm::resnet18', folder, '2x', '--checkpoint', tmp_path / 'none.pth'], 'there is no checkpoint'),
    ):
        fails('tune.py', *args, '--out', tmp_path / 'out', message=message)
        assert not (tmp_path / 'out/tune.json').exists()


def test_a_model_without_a_known_backbone_says_which_are_known(fails, clock, folder, tmp_path):
    import timm

    weights = tmp_path / 'weights.pth'
    torch.save(timm.create_model('test_convnext', num_classes=0).state_dict(), weights)
    args = ['timm::test_convnext', folder, '2x', '--checkpoint', weights, '--cfg-options', 'num_classes=0']
    fails('tune.py', *args, '--out', tmp_path / 'out', message='ConvNeXt has no known backbone; known are: ')
