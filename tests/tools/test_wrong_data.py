"""Wrong data, odd pictures and full disks end in one line that names the file, in every tool on images."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco import write_checkpoint, write_coco_config, write_coco_scenes
from PIL import Image

PLUGIN = 'SharedUpdate(after=2, grid=4)'


@pytest.fixture
def data(config_file, scenes, tmp_path):
    """A copy of the tiny config's data, which the config is changed to."""
    shutil.copytree(scenes, tmp_path / 'data')
    config_file.write_text(config_file.read_text().replace(str(scenes), str(tmp_path / 'data')))
    return tmp_path / 'data'


def write_label(path, value):
    labels = np.full((64, 64), 3, np.uint8)
    labels[5, 7] = value
    Image.fromarray(labels).save(path)


@pytest.mark.parametrize('tool', ['test.py', 'tradeoff.py'])
def test_labels_out_of_range(fails, run, data, config_file, checkpoint, tmp_path, tool):
    write_label(data / 'annotations/validation/00001.png', 200)
    args = [config_file, checkpoint, '--work-dir', tmp_path / 'work']
    fails(tool, *args, message='annotations/validation/00001.png has the label 200: 10 classes have the labels 1 to 10')
    options = ['--rounds', 1] if tool == 'tradeoff.py' else []
    result = run(tool, *args, '--skip-unreadable', *options)
    assert result.returncode == 0, result.err
    if tool == 'tradeoff.py':
        assert json.loads((tmp_path / 'work/tradeoff.json').read_text())['environment']['left_out'] == 1
    else:
        assert '1 unreadable samples are left out: ' in result.out


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('split', ['training', 'validation'])
def test_training(fails, run, data, config_file, split, workers):
    file = data / f'annotations/{split}/00001.png'
    write_label(file, 11)
    args = [config_file, '--cfg-options', 'train_cfg.max_iters=3', f'train_dataloader.num_workers={workers}']
    fails(
        'train.py', *args, message=f'error: {file} has the label 11: 10 classes have the labels 1 to 10, and 0 or 255'
    )
    Image.fromarray(np.full((64, 48), 3, np.uint8)).save(file)
    fails('train.py', *args, message=f'error: {file} has labels of 48 x 64 pixels, its picture {data}/images/{split}/0')
    file.write_bytes(b'')
    fails('train.py', *args, message=f'error: {file} cannot be read (')
    result = run('train.py', *args, '--skip-unreadable')
    assert result.returncode == 0 and '1 unreadable samples are left out: ' in result.out, result.err


@pytest.mark.parametrize('tool', ['test.py', 'tradeoff.py', 'train.py'])
def test_folders_without_pictures_of_the_suffix(fails, data, config_file, checkpoint, tool):
    for split in ('training', 'validation'):
        for file in (data / 'images' / split).iterdir():
            file.rename(file.with_suffix('.JPG'))
    args = [config_file] + [checkpoint] * (tool != 'train.py')
    count, split = (4, 'training') if tool == 'train.py' else (3, 'validation')
    found = f"{split}': they end in '.jpg', the img_suffix; there is {count} .JPG"
    fails(tool, *args, message=found)


def test_training_on_coco_files_that_list_nothing(fails, tmp_path):
    write_coco_scenes(tmp_path / 'data', 1)
    config = write_coco_config(tmp_path, tmp_path / 'data')
    text = config.read_text() + 'train_dataloader = test_dataloader\ntrain_cfg = dict(by_epoch=True, max_epochs=1)\n'
    config.write_text(text + "optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))\n")
    path = tmp_path / 'data/annotations/instances_validation.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, images=[], annotations=[])))
    fails('train.py', config, message=f"the data set has no samples in '{path}'")
    path.write_text('')
    fails('train.py', config, message=f"'{path}' cannot be read as CocoDataset reads it (JSONDecodeError: ")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    'kind, size',
    [('semantic', (20, 600)), ('semantic', (600, 20)), ('semantic', (1, 600)), ('detector', (20, 600))],
)
def test_long_pictures(run, config_file, checkpoint, pictures, tmp_path, kind, size):
    """Side by side and magnified they would be longer than a JPEG can be."""
    if kind == 'detector':
        write_coco_scenes(tmp_path / 'data', 1)
        config_file = write_coco_config(tmp_path, tmp_path / 'data')
        checkpoint = write_checkpoint(config_file)
    cv2.imwrite(str(pictures / 'a.png'), np.random.randint(0, 255, (*size, 3), np.uint8))
    result = run('predict.py', config_file, checkpoint, pictures, '--out', tmp_path / 'out')
    assert result.returncode == 0, result.err
    height, width = cv2.imread(str(tmp_path / 'out/a.png.jpg')).shape[:2]
    assert width / height == pytest.approx(3 * size[1] / size[0], rel=0.02) and max(height, width / 3) <= 4096


def test_report_on_long_pictures(run, data, config_file, checkpoint, tmp_path):
    for number in range(3):
        Image.fromarray(np.zeros((20, 3000, 3), np.uint8)).save(data / f'images/validation/0000{number}.jpg')
        Image.fromarray(np.ones((20, 3000), np.uint8)).save(data / f'annotations/validation/0000{number}.png')
    result = run('tradeoff.py', config_file, checkpoint, '--rounds', 1, '--batch', 1, '--out', tmp_path / 'report')
    assert result.returncode == 0, result.err
    assert (tmp_path / 'report/report.html').read_text().count('<img ') == 1 + 3 * 3


def test_hidden_files_are_no_pictures(run, fails, config_file, checkpoint, pictures, tmp_path):
    (pictures / '._a.jpg').write_bytes(b'what macOS knows of a.jpg')
    args = [config_file, checkpoint, pictures, '--out', tmp_path / 'out']
    fails('predict.py', *args, message='no pictures in ')
    cv2.imwrite(str(pictures / 'a.JPG'), np.zeros((64, 64, 3), np.uint8))
    assert run('predict.py', *args).returncode == 0
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['a.JPG.jpg', 'index.html']


NAMES = pytest.mark.parametrize('name', [b'a\n\x1b[31m', b'caf\xe9', '<b>\u202e &'.encode()])


@NAMES
def test_names_of_pictures(run, fails, config_file, checkpoint, pictures, tmp_path, name):
    name = os.fsdecode(name)
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / 'a.png').rename(pictures / f'{name}.png')
    (pictures / f'{name}.jpg').write_bytes(b'no picture')
    args = [config_file, checkpoint, pictures, '--out', tmp_path / 'out']
    printed = {'a': r'a\n\x1b[31m', 'c': 'caf?', '<': r'<b>\u202e &'}[name[0]]
    fails('predict.py', *args, message=f'{printed}.jpg is no readable picture; ')
    result = run('predict.py', *args, '--skip-unreadable')
    assert f'1 unreadable pictures left out: {printed}.jpg\n' in result.out, result.err
    page = (tmp_path / 'out/index.html').read_bytes().decode()
    link = {'a': 'a%0A%1B%5B31m', 'c': 'caf%E9', '<': '%3Cb%3E%E2%80%AE%20%26'}[name[0]]
    written = printed.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    assert f'<img src="{link}.png.jpg" alt="{written}.png.jpg">' in page
    assert f'Left out, unreadable: {written}.jpg</p>' in page and '\x1b' not in page and '\u202e' not in page
    assert (tmp_path / f'out/{name}.png.jpg').is_file()


def test_a_full_disk_is_told_in_a_line_of_its_own(run, config_file, checkpoint, pictures, tmp_path, monkeypatch):
    """After a line of progress, which an error begins no later than."""

    def no_room(self, content):
        raise OSError(28, 'No space left on device')

    cv2.imwrite(str(pictures / 'a.png'), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(Path, 'write_bytes', no_room)
    tools = {
        'predict.py': ([config_file, checkpoint, pictures, '--out', tmp_path / 'out'], 'out/a.png.jpg'),
        'make_scenes.py': ([tmp_path / 'scenes', '--size', 64], 'scenes/images/validation/00000.jpg'),
        'convert_checkpoint.py': ([checkpoint, tmp_path / 'new.pth'], 'new.pth'),
    }
    for tool, (args, file) in tools.items():
        result = run(tool, *args)
        assert result.returncode == 2
        assert result.err.split('\n')[-2:] == [f"error: [Errno 28] No space left on device: '{tmp_path / file}'", '']
        assert not (tmp_path / file).exists() and not list((tmp_path / file).parent.glob('.*'))
