"""The tools on drawn videos and a tiny Video Mask2Former of mmdet's, as a user runs them."""

import json
import pickle
import shutil

import pytest
from coco import write_checkpoint
from youtube_vis import FRAMES, write_video_config, write_videos

PLUGIN = 'SharedUpdate(after=2, grid=2)'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    write_videos(folder / 'data')
    write_checkpoint(write_video_config(folder, folder / 'data'))
    return folder


@pytest.fixture
def model(folder):
    return [folder / 'videos.py', folder / 'videos.pth']


def log_of(folder):
    return ''.join(file.read_text() for file in folder.rglob('*.log'))


def test_predictions_and_the_effect_of_the_plugin_line(run, model, tmp_path):
    """Two videos are two passes, all frames of one together; MACs are those of a frame."""
    result = run('test.py', *model, '--out', tmp_path / 'out.pkl', '--work-dir', tmp_path / 'work')
    assert result.returncode == 0, result.err
    summary, effect = log_of(tmp_path).splitlines()[-2:]
    assert 'mask AP ' in summary and '48 tokens became 16 after block 3 in 2 passes; ' in effect
    with open(tmp_path / 'out.pkl', 'rb') as file:
        assert [len(video['video_data_samples']) for video in pickle.load(file)] == [FRAMES, FRAMES]


def test_report(run, fails, model, tmp_path):
    """mmdet's metric of videos can be asked once, and its model takes one video at a time."""
    result = run('tradeoff.py', *model, '--batch', 2, '--rounds', 1, '--out', tmp_path / 'report')
    assert result.returncode == 0, result.err
    content = json.loads((tmp_path / 'report/tradeoff.json').read_text())
    host, fused, hourglass = content['rows']
    assert content['environment']['timed'] == f'2 videos of {FRAMES} frames'
    assert host['macs'] == fused['macs'] > hourglass['macs']
    assert all(row['metrics']['mask AP'] >= 0 and row['ms'] > 0 for row in content['rows'])
    option = ['--cfg-options', 'test_evaluator.format_only=True']
    fails('tradeoff.py', *model, *option, '--out', tmp_path / 'none', message='format_only=True')


def test_macs_are_those_of_a_frame(run, folder, tmp_path):
    """Of the backbone where nothing is computed; its frames cost alike, however many there are."""
    args, figures = [folder / 'videos.py', '--shape', 96, 128], []
    for frames, options in ((1, ['--macs-only']), (3, ['--macs-only']), (3, ['--rounds', 1, '--warmup', 0])):
        path = tmp_path / f'{len(figures)}.json'
        result = run('benchmark.py', *args, '--batch', frames, *options, '--json', path)
        assert result.returncode == 0, result.err
        figures.append(json.loads(path.read_text()))
        assert ('of the backbone alone' in result.out) == ('--macs-only' in options)
    one, three, whole = ([row['macs'] for row in content['rows']] for content in figures)
    assert one == three and one[0] == one[1] > one[2]
    # What the head computes is the same whatever the backbone saves.
    assert whole[0] - whole[2] == one[0] - one[2] and whole[0] > one[0]


def test_a_damaged_frame_is_named_or_its_video_left_out(run, fails, folder, model, tmp_path):
    """What is left is written for the server that scores it, as the published configs do."""
    shutil.copytree(folder / 'data', tmp_path / 'data')
    frame = tmp_path / 'data/valid/JPEGImages/001/00001.jpg'
    frame.write_bytes(b'none')
    option = ['--work-dir', tmp_path / 'work', '--cfg-options', f'test_dataloader.dataset.data_root={tmp_path}/data/']
    fails('test.py', *model, *option, message=f'{frame} cannot be read')
    option += ['test_evaluator.format_only=True', f'test_evaluator.outfile_prefix={tmp_path}/found']
    result = run('test.py', *model, '--skip-unreadable', *option)
    assert result.returncode == 0 and '1 unreadable samples are left out' in log_of(tmp_path), result.err
    assert {found['video_id'] for found in json.loads((tmp_path / 'found.json').read_text())} == {2}


def test_what_needs_pictures_says_so(fails, folder, model, tmp_path):
    pictures = folder / 'data/valid/JPEGImages/001'
    message = "the config's test pipeline loads videos"
    fails('predict.py', *model, pictures, message=message)
    fails('compare_features.py', model[0], pictures, '--checkpoint', model[1], '--plugin', PLUGIN, message=message)
    fails('test.py', *model, '--show-dir', tmp_path / 'show', message='--show-dir: ')
