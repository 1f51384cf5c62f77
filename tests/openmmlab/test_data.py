"""Damaged and missing videos: an error at once that names the file, or left out and counted when asked."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from videos import moving_frames, write_video

import fewtokens.openmmlab  # noqa: F401
import fewtokens.retrieval  # noqa: F401
from fewtokens.openmmlab.data import check_folders, check_paths, check_samples

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = '{base}'
vision = dict(image_size=32, patch_size=8, layers=1, width=32, head_width=16)
words = dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1)
model = dict(clip=dict(_delete_=True, config=dict(embed_dim=16, vision_cfg=vision, text_cfg=words)), max_words=12)
pipeline = [dict(type='LoadFrames', frames=2, size=32), dict(type='PackClip')]
dataset = dict(type='VideoFolder', data_root='{data}', pipeline=pipeline)
loading = dict(batch_size=2, num_workers=1, persistent_workers=False)
train_dataloader = dict(dataset=dataset, **loading)
val_dataloader = test_dataloader = dict(dataset=dataset, **loading)
work_dir = '{work}'
"""


@pytest.fixture
def folder(tmp_path):
    """Five videos with two captions each; b.mp4 is missing and d.mp4 is damaged."""
    folder = tmp_path / 'videos'
    folder.mkdir()
    for number, name in enumerate('acde'):
        write_video(folder / f'{name}.mp4', moving_frames(10, 32, 32, seed=number))
    (folder / 'd.mp4').write_bytes((folder / 'd.mp4').read_bytes()[:300])
    with (folder / 'captions.csv').open('w', newline='') as file:
        rows = [(f'{name}.mp4', f'{text} {name}') for name in 'abcde' for text in ('a bar', 'it walks')]
        csv.writer(file).writerows([('video', 'caption'), *rows])
    return folder


def dataset(folder, **options):
    pipeline = [dict(type='LoadFrames', frames=2, size=32), dict(type='PackClip')]
    return DATASETS.build(dict(type='VideoFolder', data_root=str(folder), pipeline=pipeline, **options))


@pytest.mark.parametrize('pairs', [False, True])
def test_each_video_is_checked_once(folder, pairs, monkeypatch):
    loaded = []
    data = dataset(folder, pairs=pairs)
    load = data.pipeline.transforms[0].__class__.__call__
    monkeypatch.setattr(
        data.pipeline.transforms[0].__class__,
        '__call__',
        lambda self, sample: loaded.append(Path(sample['video_path']).stem) or load(self, sample),
    )
    assert [Path(path).stem for path in check_samples(data, skip=True)] == ['b', 'd']
    assert loaded == ['a', 'c', 'd', 'e'] and len(data) == (6 if pairs else 3)


def test_errors_name_the_video(folder):
    with pytest.raises(ValueError, match='b.mp4 is missing; --skip-unreadable leaves such samples out'):
        check_samples(dataset(folder))
    with pytest.raises(ValueError, match='b.mp4 is missing'):
        check_paths(dataset(folder, pairs=True))
    write_video(folder / 'b.mp4', moving_frames(10))
    check_paths(dataset(folder))
    with pytest.raises(ValueError, match=r'd.mp4: cannot be decoded: .*; --skip-unreadable'):
        check_samples(dataset(folder))


def test_what_a_config_misses_is_named_with_its_source(tmp_path):
    config = Config(dict(dataset=dict(type='MSRVTT', data_root=str(tmp_path), pairs=True, split='train')))
    with pytest.raises(FileNotFoundError, match=r"MSRVTT needs '.*MSRVTT_data.json', .*msrvtt_data.zip"):
        check_folders(config)


def train(config, monkeypatch, capfd, *options):
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), *options])
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    try:
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    except SystemExit as end:
        assert end.code == 2
    return capfd.readouterr()


def test_training(folder, tmp_path, monkeypatch, capfd):
    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.format(base=ROOT / 'configs/_base_/clip4clip.py', data=folder, work=tmp_path / 'work'))
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    write_video(folder / 'b.mp4', moving_frames(10, 32, 32))
    error = train(config, monkeypatch, capfd, *options).err
    assert error.splitlines()[-1].startswith(f'error: {folder}/d.mp4: cannot be decoded'), error
    (folder / 'b.mp4').unlink()
    written = train(config, monkeypatch, capfd, *options, '--skip-unreadable')
    assert written.out.count('2 unreadable samples are left out: ') == 2, 'in training and validation'
    assert (tmp_path / 'work/epoch_1.pth').exists() and 'R@1' in written.out, written.err
