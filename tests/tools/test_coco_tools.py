"""The tools on COCO data, as a user runs them."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from coco import write_checkpoint, write_coco_config, write_coco_scenes

TOOLS = Path(__file__).parents[2] / 'tools'
PLUGIN = 'SharedUpdate(after=2, grid=2)'
LAUNCH = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
KINDS = pytest.mark.parametrize('kind', ['detector', 'panoptic'])


def run(tool, *args, launcher=()):
    command = [sys.executable, *launcher, str(TOOLS / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Five scenes, and a config and random weights of each kind of model."""
    folder = tmp_path_factory.mktemp('coco')
    write_coco_scenes(folder / 'data')
    for panoptic in (False, True):
        write_checkpoint(write_coco_config(folder, folder / 'data', panoptic))
    return folder


def metrics_of(work):
    (file,) = (file for file in work.rglob('*.json') if 'vis_data' not in file.parts)
    return {name: value for name, value in json.loads(file.read_text()).items() if name.startswith('coco')}


@KINDS
def test_predictions_pictures_and_the_effect(folder, tmp_path, kind):
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    args = ['--plugin', PLUGIN, '--out', out, '--show-dir', show, '--work-dir', tmp_path / 'work']
    result = run('test.py', folder / f'{kind}.py', folder / f'{kind}.pth', *args)
    assert result.returncode == 0, result.stderr
    summary, effect = result.stdout.strip().splitlines()[-2:]
    assert ('PQ ' if kind == 'panoptic' else 'box AP ') in summary and ('mask AP ' in summary) == (kind == 'detector')
    assert '144 tokens became 36 after block 2 in 5 passes; ' in effect and '% saved' in effect
    with open(out, 'rb') as file:
        assert [sample['img_id'] for sample in pickle.load(file)] == list(range(5))
    assert len(list(show.glob('*.jpg'))) == 5


@KINDS
def test_two_processes_and_an_odd_number_of_samples_give_the_same_metrics(folder, tmp_path, kind):
    args = [folder / f'{kind}.py', folder / f'{kind}.pth', '--plugin', PLUGIN, '--work-dir']
    one = run('test.py', *args, tmp_path / 'one')
    two = run('test.py', *args, tmp_path / 'two', '--launcher', 'pytorch', launcher=LAUNCH)
    assert one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr
    assert '2 in 5 passes' in one.stdout and '2 in 3 passes' in two.stdout
    alone, together = (metrics_of(tmp_path / name) for name in ('one', 'two'))
    headlines = ['coco_panoptic/PQ'] if kind == 'panoptic' else ['coco/bbox_mAP', 'coco/segm_mAP']
    assert all(alone[name] > 0 for name in headlines)
    assert together == pytest.approx(alone, rel=1e-6)


def test_predictions_of_a_detector_go_into_a_pickle(folder, tmp_path):
    result = run('test.py', folder / 'detector.py', folder / 'detector.pth', '--out', tmp_path / 'out')
    assert result.returncode == 2 and result.stderr.splitlines()[-1].endswith(
        'must end with .pkl or .pickle: mmdet writes predictions to such a file'
    )
    assert not (tmp_path / 'out').exists()


@KINDS
def test_unreadable_samples_are_left_out_with_their_objects(folder, tmp_path, kind):
    """The metrics are those of a data set that never had them."""
    shutil.copytree(folder / 'data', tmp_path / 'data')
    (tmp_path / 'data/validation/00001.jpg').write_bytes(b'no picture')
    for annotations in (tmp_path / 'data/annotations').glob('*.json'):
        content = json.loads(annotations.read_text())
        content['images'] = [image for image in content['images'] if image['id'] != 1]
        content['annotations'] = [one for one in content['annotations'] if one['image_id'] != 1]
        (tmp_path / 'less').mkdir(exist_ok=True)
        (tmp_path / 'less' / annotations.name).write_text(json.dumps(content))
    config, checkpoint = write_coco_config(tmp_path, tmp_path / 'data', kind == 'panoptic'), folder / f'{kind}.pth'
    refused = run('test.py', config, checkpoint)
    assert refused.returncode == 2 and '00001.jpg' in refused.stderr.splitlines()[-1]
    some = run('test.py', config, checkpoint, '--skip-unreadable', '--work-dir', tmp_path / 'some')
    assert some.returncode == 0 and '1 unreadable samples are left out' in some.stdout, some.stderr
    for annotations in (tmp_path / 'less').iterdir():
        shutil.copy(annotations, tmp_path / 'data/annotations')
    whole = run('test.py', config, checkpoint, '--work-dir', tmp_path / 'whole')
    assert whole.returncode == 0, whole.stderr
    assert metrics_of(tmp_path / 'some') == pytest.approx(metrics_of(tmp_path / 'whole'), rel=1e-9)
