"""Logs as MMEngine writes them, read, listed and drawn."""

import json

import cv2
import numpy as np
import pytest

from fewtokens.report.training_log import draw_log, log_table, read_log


def write_run(folder, name, rows):
    path = folder / name / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def step(number, loss):
    return dict(step=number, loss=loss, loss_mask=loss / 2, lr=0.1, time=1.0)


@pytest.fixture
def work_dir(tmp_path):
    write_run(tmp_path, '20260101_1', [step(10, 3.0), step(20, 2.0), dict(step=20, mIoU=40.0), step(30, 1.9)])
    # Resumed from the checkpoint of step 20, and ended later.
    write_run(tmp_path, '20260101_2', [step(30, 1.5), step(40, 1 / 3), dict(step=40, mIoU=50.0)])
    return tmp_path


def test_a_resumed_trainings_later_run_counts(work_dir):
    rows = read_log(work_dir)
    assert [(row['step'], row.get('loss'), row.get('mIoU')) for row in rows] == [
        (10, 3.0, None),
        (20, 2.0, None),
        (20, None, 40.0),
        (30, 1.5, None),
        (40, 1 / 3, None),
        (40, None, 50.0),
    ]


def test_table(work_dir):
    lines = log_table(dict(first=read_log(work_dir), second=[step(5, 1.0)]), ['mIoU']).splitlines()
    assert lines[:2] == ['phase,step,loss,loss_mask,lr,mIoU', 'first,10,3,1.5,0.1,']
    assert lines[3] == 'first,20,,,,40'
    assert lines[5] == 'first,40,0.333333,0.166667,0.1,' and lines[-1] == 'second,5,1,0.5,0.1,'


def test_picture(work_dir):
    picture = cv2.imdecode(np.frombuffer(draw_log(dict(first=read_log(work_dir)), ['mIoU']), np.uint8), 1)
    blank = cv2.imdecode(np.frombuffer(draw_log(dict(first=[dict(step=10)]), []), np.uint8), 1)
    assert picture.shape == (520, 750, 3) and (picture != blank).any()


def test_bad_input_is_named(work_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no work folder'):
        read_log(tmp_path / '20260101_1')
    with pytest.raises(ValueError, match="'PQ' was not logged; there are loss, loss_mask, lr, mIoU"):
        log_table(dict(first=read_log(work_dir)), ['PQ'])
