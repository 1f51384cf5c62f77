import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from videos import REAL, moving_frames, write_video

from fewtokens.retrieval.decode import VideoError, open_video
from fewtokens.retrieval.transforms import LoadFrames, PackClip, resize


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / 'clip.mp4', moving_frames(40), fps=10)


def load(path, **options):
    return LoadFrames(**{'size': 32, **options})(dict(video_path=str(path)))['frames']


@pytest.mark.parametrize('shape', [(48, 64), (64, 48), (144, 176), (20, 20), (32, 45), (32, 32)])
def test_resizing_is_clips_own(shape):
    # A smooth picture: bicubic filters differ in how they round sharp edges.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    frame = np.stack([127 + 120 * np.sin(rows / 7), 127 + 120 * np.cos(columns / 9), rows + columns], axis=2)
    frame = frame.astype(np.uint8)
    clips_own = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])(Image.fromarray(frame))
    resized = resize(frame[None], 32)
    assert resized.shape == (1, 32, 32, 3) and resized.dtype == np.uint8
    np.testing.assert_allclose(resized[0].astype(int), np.asarray(clips_own), atol=2)


def test_frames_are_those_asked_for(clip):
    video = open_video(clip)
    for options, indices in (
        (dict(frames=4, rate=10.0), [0, 13, 26, 39]),
        (dict(frames=4, rate=1.0), [0, 10, 20, 30]),
        (dict(frames=12, rate=1.0), [0, 10, 20, 30]),
        (dict(frames=2, rate=None, how='segment'), [10, 30]),
        (dict(frames=3, rate=None, how='tail'), [37, 38, 39]),
    ):
        np.testing.assert_array_equal(load(clip, **options), resize(video.frames(indices), 32))
    sample = LoadFrames(rate=1.0, size=32)(dict(video_path=str(clip), max_seconds=2.0))
    np.testing.assert_array_equal(sample['frames'], resize(video.frames([0, 10]), 32))


def test_real_clips_at_clips_size():
    frames = load(REAL[1], size=224)
    assert frames.shape == (10, 224, 224, 3), '250 frames at 25 a second'


def test_random_frames_follow_numpys_seed(clip):
    draws = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        draws.append(load(clip, how='random', frames=4, rate=None))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_pickled_and_built_by_name(clip):
    transform = TRANSFORMS.build(dict(type='LoadFrames', frames=3, size=32))
    again = pickle.loads(pickle.dumps(transform))
    sample = dict(video_path=str(clip), video_id='a', texts=['a bar'])
    np.testing.assert_array_equal(again(sample)['frames'], transform(sample)['frames'])
    packed = TRANSFORMS.build(dict(type='PackClip'))(transform(sample))
    assert packed['inputs'].shape == (3, 3, 32, 32) and packed['inputs'].dtype == torch.uint8
    assert packed['inputs'].is_contiguous()
    np.testing.assert_array_equal(packed['inputs'].permute(0, 2, 3, 1).numpy(), transform(sample)['frames'])
    assert packed['data_samples'].texts == ['a bar']
    assert packed['data_samples'].metainfo == dict(video_id='a', video_path=str(clip))
    assert 'video_id' in packed['data_samples'].to_dict()
    assert PackClip()(dict(frames=np.zeros((1, 4, 4, 3), np.uint8)))['data_samples'].texts == []


def kept_files(folder):
    return sorted(folder.rglob('*.npz'))


@pytest.mark.parametrize('how', ['uniform', 'random'])
def test_cache_gives_the_same_frames(clip, tmp_path, monkeypatch, how):
    options = dict(frames=4, rate=5.0, how=how)
    np.random.seed(3)
    plain = load(clip, **options)
    frames = []
    for _ in range(2):
        np.random.seed(3)
        frames.append(load(clip, **options, cache_dir=tmp_path / 'cache'))
        monkeypatch.setattr('fewtokens.retrieval.transforms.open_video', None)  # the second time nothing is decoded
    np.testing.assert_array_equal(frames[0], plain)
    np.testing.assert_array_equal(frames[1], plain)
    assert len(kept_files(tmp_path)) == 1


def test_cache_knows_versions_and_settings(clip, tmp_path):
    cache = tmp_path / 'cache'
    first = load(clip, cache_dir=cache)
    for options in (dict(frames=2), dict(rate=2.0), dict(size=16), dict(how='tail'), dict(decoder='pyav')):
        load(clip, **options, cache_dir=cache)
    LoadFrames(size=32, cache_dir=cache)(dict(video_path=str(clip), max_seconds=1.0))
    assert len(kept_files(cache)) == 7
    load(clip, how='random', frames=2, cache_dir=cache)
    load(clip, how='random', frames=3, cache_dir=cache)
    assert len(kept_files(cache)) == 8, 'all candidates are kept for any draw'
    write_video(clip, moving_frames(40, seed=5), fps=10)
    os.utime(clip, ns=(1, 1))
    assert not np.array_equal(load(clip, cache_dir=cache), first)
    clip.unlink()
    with pytest.raises(VideoError, match='clip.mp4: there is no such video'):
        load(clip, cache_dir=cache)


@pytest.mark.parametrize('damage', ['empty', 'cut', 'text', 'bit', 'other'])
def test_damaged_cache_is_decoded_again(clip, tmp_path, damage):
    expected = load(clip, cache_dir=tmp_path / 'cache')
    (kept,) = kept_files(tmp_path)
    content = bytearray(kept.read_bytes())
    if damage == 'other':
        np.savez(kept, frames=np.zeros((2, 3), np.float32))
    else:
        flipped = content.copy()
        flipped[len(flipped) // 2] ^= 4
        kept.write_bytes(dict(empty=b'', cut=content[:-100], text=b'no frames', bit=flipped)[damage])
    damaged = kept.read_bytes()
    np.testing.assert_array_equal(load(clip, cache_dir=tmp_path / 'cache'), expected)
    assert kept.read_bytes() != damaged, 'it is replaced'
    np.testing.assert_array_equal(load(clip, cache_dir=tmp_path / 'cache'), expected)


def test_cache_is_filled_by_several_processes(clip, tmp_path):
    loader = LoadFrames(size=32, cache_dir=tmp_path / 'cache')
    with ProcessPoolExecutor(2, mp_context=get_context('fork')) as pool:
        results = list(pool.map(loader, [dict(video_path=str(clip))] * 12))
    for result in results:
        np.testing.assert_array_equal(result['frames'], load(clip))
    files = [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]
    assert files == kept_files(tmp_path) and len(files) == 1, 'nothing half-written stays'


def test_cache_that_cannot_be_written(clip, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.warns(UserWarning, match='decoded frames cannot be kept in .*file'):
        np.testing.assert_array_equal(load(clip, cache_dir=tmp_path / 'file'), load(clip))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(frames=0), 'frames=0 and size=224 must be at least 1'),
        (dict(size=0), 'size=0 must be at least 1'),
        (dict(rate=0), 'rate=0 must be frames per second'),
        (dict(how='all'), "how='all' must be one of uniform, segment"),
        (dict(decoder='cv2'), "decoder='cv2' must be one of auto, decord"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        LoadFrames(**options)


def test_unreadable_videos(tmp_path):
    (tmp_path / 'empty.mp4').touch()
    for options in ({}, dict(cache_dir=tmp_path / 'cache')):
        with pytest.raises(VideoError, match='empty.mp4: the file is empty'):
            load(tmp_path / 'empty.mp4', **options)
    assert not kept_files(tmp_path)
