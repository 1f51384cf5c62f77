"""Checkpoints of every kind, given to the tools."""

import os

import cv2
import numpy as np
import pytest
import torch

OPTIONS = '--cfg-options'


class Harmful:
    def __reduce__(self):
        return os.mkdir, ('harmed',)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def remade(checkpoint, **meta):
    """The checkpoint as a publisher leaves it: in the old format, with other `meta`."""
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    save_old(dict(state_dict=state, **meta), 'remade.pth')
    return 'remade.pth'


@pytest.mark.parametrize(
    'meta',
    [
        {},
        dict(meta=dict(dataset_meta=None)),
        dict(meta=dict(CLASSES=tuple('abcdefghij'), PALETTE=None)),
        dict(meta=dict(CLASSES=tuple('abcdefghijk'))),
        dict(meta=dict(CLASSES=tuple('abcdefghij'), PALETTE=[[i, 9, 9] for i in range(10)])),
    ],
)
def test_classes_and_colours_may_be_missing(run, config_file, scenes, checkpoint, meta):
    result = run('predict.py', config_file, remade(checkpoint, **meta), scenes / 'images/validation', '--out', 'out')
    assert result.returncode == 0, result.err
    assert len([name for name in os.listdir('out') if name.endswith('.jpg')]) == 3


def test_colours_are_the_checkpoints_or_the_data_sets(run, config_file, scenes, checkpoint):
    pictures = []
    for number, meta in enumerate(({}, dict(meta=dict(CLASSES=tuple('abcdefghij'))))):
        args = [config_file, remade(checkpoint, **meta), scenes / 'images/validation', '--out', f'out{number}']
        assert run('predict.py', *args).returncode == 0
        pictures.append(cv2.imread(f'out{number}/00001.jpg.jpg'))
    args = [config_file, checkpoint, scenes / 'images/validation', '--out', 'own']
    assert run('predict.py', *args).returncode == 0
    assert np.array_equal(*pictures) and not np.array_equal(pictures[0], cv2.imread('own/00001.jpg.jpg'))


def test_test_and_the_report_take_a_published_checkpoint(run, config_file, checkpoint):
    path = remade(checkpoint)
    result = run('test.py', config_file, path, '--work-dir', 'test', '--show-dir', 'shown')
    assert result.returncode == 0 and 'mIoU' in result.out, result.err
    result = run('tradeoff.py', config_file, path, '--rounds', 1, '--out', 'report')
    assert result.returncode == 0 and os.path.exists('report/report.html'), result.err


@pytest.mark.parametrize('tool', ['test.py', 'predict.py', 'tradeoff.py', 'benchmark.py', 'train.py'])
@pytest.mark.parametrize(
    'content, message',
    [
        (b'<html></html>', "'given.pth' is no checkpoint: it is a web page"),
        (dict(state_dict=None), "checkpoint 'given.pth' holds no weights: its state_dict is None"),
        (dict(state_dict={}, harm=Harmful()), f"'given.pth' cannot be loaded safely: it carries {os.name}.mkdir, "),
        (None, "there is no checkpoint 'given.pth'"),
    ],
)
def test_bad_checkpoints_are_one_line(fails, config_file, scenes, tool, content, message):
    if isinstance(content, bytes):
        open('given.pth', 'wb').write(content)
    elif content is not None:
        save_old(content, 'given.pth')
    args = {
        'train.py': [OPTIONS, 'load_from=given.pth'],
        'predict.py': ['given.pth', scenes / 'images/validation'],
        'benchmark.py': ['--checkpoint', 'given.pth'],
    }.get(tool, ['given.pth'])
    fails(tool, config_file, *args, message=message)
    assert not os.path.exists('harmed')


def test_pretrained_weights_of_a_backbone_run_nothing(fails, config_file):
    save_old(dict(model={'cls_token': torch.ones(1, 1, 32)}, harm=Harmful()), 'vit.pth')
    options = [OPTIONS, 'model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=vit.pth']
    fails('train.py', config_file, *options, message=f"'vit.pth' cannot be loaded safely: it carries {os.name}.mkdir, ")
    assert not os.path.exists('harmed')


def test_a_training_goes_on_from_a_checkpoint_in_the_old_format(run, fails, config_file, checkpoint):
    schedule = "param_scheduler = [dict(type='OneCycleLR', eta_max=1e-3, total_steps=9, by_epoch=False)]"
    config_file.write_text(config_file.read_text().replace('param_scheduler = []', schedule))
    assert run('train.py', config_file).returncode == 0
    content = torch.load('work/iter_2.pth', weights_only=False)
    save_old(content, 'old.pth')
    options = [OPTIONS, 'train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'resume=True']
    result = run('train.py', config_file, *options, 'load_from=old.pth')
    assert result.returncode == 0 and 'resumed epoch: 0, iter: 2' in result.out, result.err
    again = torch.load('work/iter_3.pth', weights_only=False)
    steps = [schedule['_global_step'] for schedule in (content['param_schedulers'][0], again['param_schedulers'][0])]
    assert steps == [2, 3]
    message = 'has no message_hub and no optimizer, without which a training cannot go on'
    fails('train.py', config_file, *options, f'load_from={checkpoint}', message=message)
