import json
import os

import av
import numpy as np
import pytest
from videos import moving_frames, turn, write_video

from fewtokens.retrieval.decode import open_video
from fewtokens.retrieval.prepare import PrepareVideo


@pytest.fixture
def folder(tmp_path):
    videos = tmp_path / 'videos'
    (videos / 'more').mkdir(parents=True)
    write_video(videos / 'wide.mp4', moving_frames(25, 48, 86))
    write_video(videos / 'more/tall.avi', moving_frames(20, 96, 40), codec='mpeg4')
    write_video(videos / 'slow.mkv', moving_frames(4, 48, 48), fps=2)
    return videos


def prepare(run, folder, out, *options):
    return run('prepare_videos.py', folder, out, '--side', 32, '--workers', 1, *options)


def test_copies_are_small_and_few(run, folder, tmp_path):
    out = tmp_path / 'small'
    result = prepare(run, folder, out)
    assert result.returncode == 0 and result.out == f'{out}: 3 videos; 3 made, 0 were there\n'
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob('*.*') if p.is_file()) == [
        '.prepared.json', 'more/tall.mp4', 'slow.mp4', 'wide.mp4'
    ]  # fmt: skip
    # Width and height, frames and frames a second: 25 frames at 10 a second, every third or fourth.
    expected = {'wide': ((56, 32), 8, 3), 'more/tall': ((32, 76), 6, 3), 'slow': ((32, 32), 4, 2)}
    for name, (size, count, rate) in expected.items():
        with av.open(str(out / f'{name}.mp4')) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == size and stream.average_rate == rate
            assert stream.codec_context.name == 'h264' and len(container.streams) == 1
        assert len(open_video(out / f'{name}.mp4')) == count
    # The same frames as LoadFrames takes at 3 a second: the bar is where it was.
    taken = open_video(folder / 'wide.mp4').frames([0, 3, 7, 10, 13, 17, 20, 23])
    copied = open_video(out / 'wide.mp4').frames(range(8))
    for picture, copy in zip(taken, copied):
        bar = abs(picture[24].astype(int) - picture[24].astype(int).mean(0)).sum(1).argmax() / 86
        small = abs(copy[16].astype(int) - copy[16].astype(int).mean(0)).sum(1).argmax() / 56
        assert abs(bar - small) < 0.1


def test_run_again_it_makes_what_is_missing_or_changed(run, folder, tmp_path):
    out = tmp_path / 'small'
    prepare(run, folder, out)
    os.utime(folder / 'wide.mp4', (2e9, 2e9))
    (out / 'slow.mp4').unlink()
    kept = (out / 'more/tall.mp4').stat().st_mtime_ns
    result = prepare(run, folder, out)
    assert result.out == f'{out}: 3 videos; 2 made, 1 were there\n'
    assert (out / 'more/tall.mp4').stat().st_mtime_ns == kept and (out / 'slow.mp4').is_file()


def test_a_damaged_video_leaves_nothing_behind(run, fails, folder, tmp_path):
    out = tmp_path / 'small'
    (folder / 'broken.mp4').write_bytes((folder / 'wide.mp4').read_bytes()[:900])
    fails('prepare_videos.py', folder, out, '--side', 32, '--workers', 1, message='broken.mp4')
    assert not [path for path in out.rglob('*') if 'broken' in path.name or 'unfinished' in path.name]
    result = prepare(run, folder, out, '--skip-unreadable')
    assert result.returncode == 0 and '1 unreadable videos left out:\n' in result.out and 'broken.mp4' in result.out
    assert f'{out}: 3 videos; ' in result.out


def test_pictures_stand_upright(folder, tmp_path):
    turn(folder / 'wide.mp4', 90)
    assert PrepareVideo(side=32)(folder / 'wide.mp4', tmp_path / 'out.mp4') == 8
    frames = open_video(tmp_path / 'out.mp4').frames([0])
    assert frames.shape[1:3] == (56, 32)


def test_a_full_disk_is_no_damaged_video(folder, tmp_path, run, monkeypatch):
    out = tmp_path / 'small'

    def full(*args):
        raise OSError(28, 'No space left on device', str(out))

    monkeypatch.setattr(PrepareVideo, '__call__', full)
    result = prepare(run, folder, out, '--skip-unreadable')
    assert result.returncode == 2 and 'No space left' in result.err.splitlines()[-1]


def test_a_video_that_is_locked_is_left_out(folder, tmp_path, run, monkeypatch):
    whole = PrepareVideo.__call__

    def locked(self, source, target):
        if source.name == 'slow.mkv':
            raise PermissionError(13, 'Permission denied', str(source))
        return whole(self, source, target)

    monkeypatch.setattr(PrepareVideo, '__call__', locked)
    result = prepare(run, folder, tmp_path / 'small', '--skip-unreadable')
    assert result.returncode == 0 and '1 unreadable videos left out:\n' in result.out and 'slow.mkv' in result.out


def test_wrong_folders_and_settings(fails, folder, tmp_path):
    out = tmp_path / 'small'
    fails('prepare_videos.py', tmp_path / 'none', out, message='no folder')
    fails('prepare_videos.py', folder, folder / 'small', message='is within')
    fails('prepare_videos.py', folder, out, '--side', 33, message='side=33')
    fails('prepare_videos.py', folder, out, '--rate', 0, message='rate=0')
    assert not out.exists()
    out.mkdir()
    (out / '.prepared.json').write_text(json.dumps(dict(rate=3.0, side=224)))
    fails('prepare_videos.py', folder, out, '--side', 32, message="'side': 224")
    (folder / 'wide.avi').write_bytes(b'')
    fails('prepare_videos.py', folder, tmp_path / 'other', message='would have the same copy')


def test_a_long_strip_is_refused(tmp_path):
    write_video(tmp_path / 'strip.mp4', np.zeros((2, 2, 1500, 3), np.uint8))
    with pytest.raises(ValueError, match='strip.mp4: 1500 x 2 pixels are too long'):
        PrepareVideo()(tmp_path / 'strip.mp4', tmp_path / 'out.mp4')
