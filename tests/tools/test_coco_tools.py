"""The tools on COCO data, as a user runs them; in this process, where nothing is said of processes."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from coco import write_checkpoint, write_coco_config, write_coco_scenes

TOOLS = Path(__file__).parents[2] / 'tools'
PLUGIN = 'SharedUpdate(after=2, grid=2)'
TWO_PROCESSES = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
KINDS = pytest.mark.parametrize('kind', ['detector', 'panoptic'])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Five scenes, and a config and random weights of each kind of model."""
    folder = tmp_path_factory.mktemp('coco')
    write_coco_scenes(folder / 'data')
    for panoptic in (False, True):
        write_checkpoint(write_coco_config(folder, folder / 'data', panoptic))
    return folder


def log_of(folder):
    return ''.join(file.read_text() for file in folder.rglob('*.log'))


def metrics_of(work):
    (file,) = (file for file in work.rglob('*.json') if 'vis_data' not in file.parts)
    return {name: value for name, value in json.loads(file.read_text()).items() if name.startswith('coco')}


@KINDS
def test_predictions_pictures_and_the_effect(run, folder, tmp_path, kind):
    out, show = tmp_path / 'out.pkl', tmp_path / 'show'
    args = ['--plugin', PLUGIN, '--out', out, '--show-dir', show, '--work-dir', tmp_path / 'work']
    result = run('test.py', folder / f'{kind}.py', folder / f'{kind}.pth', *args)
    assert result.returncode == 0, result.err
    summary, effect = log_of(tmp_path).splitlines()[-2:]
    assert ('PQ ' if kind == 'panoptic' else 'box AP ') in summary and ('mask AP ' in summary) == (kind == 'detector')
    assert '144 tokens became 36 after block 2 in 5 passes; ' in effect and '% saved' in effect
    with open(out, 'rb') as file:
        assert [sample['img_id'] for sample in pickle.load(file)] == list(range(5))
    assert len(list(show.glob('*.jpg'))) == 5


@KINDS
def test_mixed_precision(run, folder, tmp_path, linear_dtypes, kind):
    """Metrics and files hold no bfloat16, which NumPy doesn't know."""
    args = ['--amp', '--out', tmp_path / 'out.pkl', '--work-dir', tmp_path / 'work']
    result = run('test.py', folder / f'{kind}.py', folder / f'{kind}.pth', *args)
    assert result.returncode == 0 and linear_dtypes == {torch.bfloat16}, result.err
    if kind == 'detector':
        with open(tmp_path / 'out.pkl', 'rb') as file:
            assert {sample['pred_instances']['bboxes'].dtype for sample in pickle.load(file)} == {torch.float32}


@KINDS
def test_two_processes_and_an_odd_number_of_samples_give_the_same_metrics(run, folder, tmp_path, kind):
    args = [folder / f'{kind}.py', folder / f'{kind}.pth', '--plugin', PLUGIN, '--work-dir']
    one = run('test.py', *args, tmp_path / 'one')
    command = [sys.executable, *TWO_PROCESSES, TOOLS / 'test.py', *args, tmp_path / 'two', '--launcher', 'pytorch']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    two = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert one.returncode == 0 and two.returncode == 0, one.err + two.stderr
    assert '2 in 5 passes' in log_of(tmp_path / 'one') and '2 in 3 passes' in two.stdout
    alone, together = (metrics_of(tmp_path / name) for name in ('one', 'two'))
    headlines = ['coco_panoptic/PQ'] if kind == 'panoptic' else ['coco/bbox_mAP', 'coco/segm_mAP']
    assert all(alone[name] > 0 for name in headlines)
    assert together == pytest.approx(alone, rel=1e-6)


def test_predictions_of_a_detector_go_into_a_pickle(fails, folder, tmp_path):
    args = [folder / 'detector.py', folder / 'detector.pth', '--out', tmp_path / 'out']
    fails('test.py', *args, message='must end with .pkl or .pickle: mmdet writes predictions to such a file')
    assert not (tmp_path / 'out').exists()


@KINDS
def test_unreadable_samples_are_left_out_with_their_objects(run, fails, folder, tmp_path, kind):
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
    fails('test.py', config, checkpoint, message='00001.jpg')
    some = run('test.py', config, checkpoint, '--skip-unreadable', '--work-dir', tmp_path / 'some')
    assert some.returncode == 0 and '1 unreadable samples are left out' in log_of(tmp_path), some.err
    for annotations in (tmp_path / 'less').iterdir():
        shutil.copy(annotations, tmp_path / 'data/annotations')
    whole = run('test.py', config, checkpoint, '--work-dir', tmp_path / 'whole')
    assert whole.returncode == 0, whole.err
    assert metrics_of(tmp_path / 'some') == pytest.approx(metrics_of(tmp_path / 'whole'), rel=1e-9)


@KINDS
def test_report(run, folder, tmp_path, kind, monkeypatch):
    monkeypatch.setattr('fewtokens.openmmlab.tradeoff.PICTURES', 1)
    out = tmp_path / 'report'
    args = ['--plugin', PLUGIN, '--plugin', 'Hourglass(after=2, grid=2)', '--half-resolution', '--rounds', 1]
    result = run('tradeoff.py', folder / f'{kind}.py', folder / f'{kind}.pth', *args, '--out', out)
    assert result.returncode == 0, result.err
    rows = json.loads((out / 'tradeoff.json').read_text())['rows']
    names = ['PQ'] if kind == 'panoptic' else ['box AP', 'mask AP']
    assert len(rows) == 5 and rows[0]['macs'] == rows[1]['macs'] > rows[2]['macs']
    for row in rows:
        assert list(row['metrics'])[: len(names)] == list(row['differences']) == list(row['intervals']) == names
        assert all(0 <= row['metrics'][name] <= 100 for name in names) and row['finite']
    assert all(low <= high for row in rows[1:] for low, high in row['intervals'].values())
    header = next(line for line in result.out.splitlines() if 'GMACs' in line)
    page = (out / 'report.html').read_text()
    assert all(f' {name} |' in header and f'<th>{name}</th>' in page for name in names)
    # The curve; of one image the image, the truth, host, two plugins with their clusters, half resolution.
    assert page.count('<img ') == 1 + 8
    # What the report says of the host is what test.py finds.
    run('test.py', folder / f'{kind}.py', folder / f'{kind}.pth', '--work-dir', tmp_path / 'test')
    tested = metrics_of(tmp_path / 'test')
    wanted = (
        [tested['coco_panoptic/PQ']]
        if kind == 'panoptic'
        else [100 * tested[f'coco/{n}_mAP'] for n in ('bbox', 'segm')]
    )
    assert [rows[0]['metrics'][name] for name in names] == pytest.approx(wanted, rel=1e-4)


@KINDS
def test_predict(run, folder, tmp_path, kind):
    (tmp_path / 'pictures').mkdir()
    shutil.copy(folder / 'data/validation/00003.jpg', tmp_path / 'pictures/a.jpg')
    args = [folder / f'{kind}.py', folder / f'{kind}.pth', tmp_path / 'pictures', '--plugin', PLUGIN]
    result = run('predict.py', *args, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.err
    assert cv2.imread(str(tmp_path / 'out/a.jpg.jpg')).shape == (512, 5 * 512, 3)


@KINDS
def test_predict_with_a_published_checkpoint(run, folder, tmp_path, kind):
    """In the old format, with classes alone, as of version 0.x, or with nothing but weights."""
    (tmp_path / 'pictures').mkdir()
    shutil.copy(folder / 'data/validation/00003.jpg', tmp_path / 'pictures/a.jpg')
    given = torch.load(folder / f'{kind}.pth', weights_only=True)
    classes = dict(CLASSES=given['meta']['dataset_meta']['classes'])
    pictures = []
    for content in (given, dict(given, meta=classes), dict(state_dict=given['state_dict'])):
        torch.save(content, tmp_path / 'given.pth', _use_new_zipfile_serialization=False)
        args = [folder / f'{kind}.py', tmp_path / 'given.pth', tmp_path / 'pictures']
        result = run('predict.py', *args, '--out', tmp_path / 'out')
        assert result.returncode == 0, result.err
        pictures.append((tmp_path / 'out/a.jpg.jpg').read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]


def test_macs_without_an_image_are_those_of_the_backbone(run, folder):
    args = [folder / 'detector.py', '--shape', 64, 64, '--plugin', PLUGIN]
    backbone = run('benchmark.py', *args, '--macs-only')
    assert backbone.returncode == 0 and 'of the backbone alone: the rest computes as much as it finds' in backbone.out
    whole = run('benchmark.py', *args, '--rounds', 1)
    assert whole.returncode == 0 and 'of the backbone' not in whole.out


def test_half_precision_is_measured_where_it_runs(run, fails, folder, tmp_path):
    args = ['--shape', 64, 64, '--dtype', 'bfloat16', '--rounds', 1, '--warmup', 0, '--plugin', PLUGIN]
    result = run('benchmark.py', folder / 'detector.py', *args, '--json', tmp_path / 'figures.json')
    assert result.returncode == 0, result.err
    host, fused, reduced = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert host['ms'] is None and fused['speedup'] == 1 and reduced['ms'] > 0
    assert result.out.splitlines()[-1] == f'host cannot run: {host["failure"]}'
    message = 'host + sdpa, which all rows are compared with, cannot run in bfloat16 on cpu: RuntimeError: '
    fails('benchmark.py', folder / 'panoptic.py', *args, message=message)


def test_bad_input_is_one_line(fails, folder, tmp_path):
    """What is wrong with annotation files stands in tests/openmmlab/test_coco_annotations.py."""
    detector, panoptic = ([folder / f'{kind}.py', folder / f'{kind}.pth'] for kind in ('detector', 'panoptic'))
    for plugin, message in (
        ('Hourglass(2, 5)', 'grid=(5, 5) must be at most (4, 4), tokens in an attention window'),
        ('SharedUpdate((1, 2), (2, 3))', 'a later stage must not be finer'),
        ('Hourglass(5, 2)', 'between 0 and 4'),
    ):
        fails('test.py', *detector, '--plugin', plugin, '--work-dir', tmp_path, message=message)
    cut = tmp_path / 'cut.json'
    cut.write_bytes((folder / 'data/annotations/instances_validation.json').read_bytes()[:-9])
    option = ['--cfg-options', f'test_evaluator.ann_file={cut}']
    for tool in ('test.py', 'tradeoff.py'):
        fails(tool, *detector, *option, '--work-dir', tmp_path, message='cut short')
    shutil.copytree(folder / 'data', tmp_path / 'data')
    (tmp_path / 'data/annotations/panoptic_validation/00002.png').unlink()
    option = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "data"}/']
    fails('test.py', *panoptic, *option, '--work-dir', tmp_path, message='panoptic_validation/00002.png is missing')
