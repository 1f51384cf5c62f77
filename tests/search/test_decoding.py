"""Files that hang or crash a decoder: a stand-in does as it reads in the file."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from stub_index import MODEL, Encode, Load, summary

from fewtokens.search.decoding import decode_videos
from fewtokens.search.index import VideoIndex


class Moody(Load):
    """Leaves its process's number beside each file."""

    def __call__(self, results):
        path = results['video_path']
        with open(path) as file, open(f'{path}.pid', 'w') as pid:
            mood = file.read()
            pid.write(str(os.getpid()))
        if mood == 'hangs':
            ctypes.PyDLL(None).sleep(1000)  # in native code, which lets no other thread of Python run
        elif mood == 'sleeps':
            time.sleep(1000)
        elif mood == 'crashes':
            faulthandler.disable()  # pytest's
            os.kill(os.getpid(), signal.SIGSEGV)
        elif mood == 'is killed':
            os.kill(os.getpid(), signal.SIGKILL)
        elif mood == 'needs decord':
            raise ImportError('the decoder decord is missing')
        elif mood == 'has a fault':
            raise ZeroDivisionError('of a decoder')
        return super().__call__(results)


def write(folder, **moods):
    for name, mood in moods.items():
        (folder / f'{name}.mp4').write_text(mood)
    return [folder / f'{name}.mp4' for name in moods]


def has_ended(pid):
    try:
        os.kill(pid, 0)  # one that nobody waited for is still there
    except ProcessLookupError:
        return True
    return False


def pids_beside(folder):
    return {int(text) for path in folder.rglob('*.pid') if (text := path.read_text())}


def update(index, folder, encode=None, **options):
    options = dict(batch=2, workers=2, progress=False, time_limit=0.5) | options
    return index.update(folder, encode or Encode(), Moody(), MODEL, **options)


@pytest.mark.parametrize('workers', [1, 2])
def test_the_files_after_one_that_hangs_are_indexed(index, folder, workers):
    write(folder, aa='hangs', bb='crashes', cc='hangs')
    result = update(index, folder, workers=workers, skip_unreadable=True)
    assert summary(result) == (5, 0, 0, 5)
    assert result.unreadable == {
        'aa.mp4': f'{folder}/aa.mp4: was not decoded within 0.5 s (--time-limit)',
        'bb.mp4': f'{folder}/bb.mp4: crashes the decoder (signal 11)',
        'cc.mp4': f'{folder}/cc.mp4: was not decoded within 0.5 s (--time-limit)',
    }
    pids = pids_beside(folder)
    assert len(pids) > workers and all(map(has_ended, pids)) and os.getpid() not in pids
    assert summary(update(VideoIndex(index.path), folder, skip_unreadable=True)) == (0, 0, 0, 5)


def test_one_that_hangs_is_an_error_that_names_it(index, folder):
    write(folder, z='hangs')
    with pytest.raises(ValueError, match=r'z.mp4: was not decoded within 0.5 s .*; --skip-unreadable leaves'):
        update(index, folder)
    assert all(map(has_ended, pids_beside(folder)))
    left = sorted(path.relative_to(index.path).parts[0] for path in index.path.rglob('*') if path.is_file())
    assert left == ['.lock', 'manifest.json', 'shards']
    encode = Encode()
    write(folder, z='zebra')
    assert summary(update(VideoIndex(index.path), folder, encode)) == (6, 0, 0, 6)
    assert encode.seen == 2, 'four were encoded before'


def test_frames_come_in_order(tmp_path):
    paths = write(tmp_path, **{f'v{number:02}': 'hangs' if number == 3 else chr(65 + number) for number in range(20)})
    outcomes = list(decode_videos(paths, Moody(), 3, time_limit=0.5, ahead=8))
    assert outcomes.pop(3) == f'{paths[3]}: was not decoded within 0.5 s (--time-limit)'
    expected = [65 + number for number in range(20) if number != 3]
    assert [int(frames[0, 0, 0, 0]) for frames in outcomes] == expected and outcomes[0].dtype == np.uint8


def test_no_more_is_decoded_ahead_than_asked_for(tmp_path):
    paths = write(tmp_path, **{f'v{number}': 'a' for number in range(9)})
    with closing(decode_videos(paths, Moody(), 1, ahead=2)) as outcomes:
        next(outcomes)
    assert len(list(tmp_path.glob('*.pid'))) <= 3


def test_a_failure_does_not_wait_for_one_that_hangs(tmp_path):
    paths = write(tmp_path, a='a', b='hangs')
    with closing(decode_videos(paths, Moody(), 2, time_limit=10**9)) as outcomes:
        next(outcomes)
        while len(pids_beside(tmp_path)) < 2:
            time.sleep(0.01)
    assert all(map(has_ended, pids_beside(tmp_path)))


@pytest.mark.parametrize(
    ('mood', 'kind', 'message'),
    [
        ('is killed', ValueError, 'a decoding process was killed at .*a.mp4: too little memory?'),
        ('needs decord', ImportError, '^the decoder decord is missing$'),
        ('has a fault', RuntimeError, '(?s)decoding .*a.mp4 failed:.*test_decoding.*ZeroDivisionError: of a decoder'),
    ],
)
def test_what_is_no_fault_of_the_file_is_an_error(index, tmp_path, mood, kind, message):
    write(tmp_path, a=mood)
    with pytest.raises(kind, match=message):
        update(index, tmp_path, skip_unreadable=True)
    assert all(map(has_ended, pids_beside(tmp_path)))


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_decoding import Moody, decode_videos

paths = [Path(sys.argv[1], name) for name in ('a.mp4', 'b.mp4', 'c.mp4')]
next(decode_videos(paths, Moody(), 2, ahead=2))
os.kill(os.getpid(), 9)
"""


def test_processes_do_not_outlive_one_that_was_killed(tmp_path):
    write(tmp_path, a='a', b='sleeps', c='c')
    helpers = os.path.dirname(sys.modules['stub_index'].__file__)
    command = [sys.executable, '-c', KILLED, str(tmp_path), os.path.dirname(__file__), helpers]
    # Whoever is left holds the pipe, which is read to its end.
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == -9, result.stderr
    assert (tmp_path / 'a.mp4.pid').exists()
