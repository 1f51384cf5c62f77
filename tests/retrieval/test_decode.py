import pickle
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from videos import REAL, moving_frames, show_by, turn, write_audio, write_video

from fewtokens.retrieval.decode import VideoError, open_video

DECODERS = ('decord', 'pyav')


def sequential(path):
    """Every frame, decoded from the first to the last without seeking."""
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


@pytest.mark.parametrize('path', REAL, ids=lambda path: path.stem)
def test_decoders_agree_on_real_clips(path):
    readers = [open_video(path, decoder) for decoder in DECODERS]
    n = len(readers[0])
    assert n == len(readers[1]) == {'bigbuckbunny': 132, 'bikes': 250, 'carphone_pristine': 120}[path.stem]
    assert readers[0].fps == pytest.approx(readers[1].fps)
    indices = np.linspace(0, n - 1, 7).astype(int)[[3, 0, 6, 1, 2, 5, 4]]
    decord, pyav = (reader.frames(indices) for reader in readers)
    assert decord.dtype == pyav.dtype == np.uint8 and decord.shape == pyav.shape
    assert np.abs(decord.astype(int) - pyav).max() <= 2


WRITINGS = dict(
    plain={},
    b_frames=dict(bf='8', g='30', refs='4', **{'x264-params': 'b-pyramid=normal:b-adapt=0'}),
    open_groups=dict(bf='3', **{'x264-params': 'open-gop=1:keyint=20:min-keyint=20:scenecut=0'}),
    mpeg4=dict(codec='mpeg4', g='12'),
    variable_rate=dict(bf='3', g='20', times=np.cumsum(np.random.RandomState(0).choice([40, 100, 250], 70))),
)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.avi'])
@pytest.mark.parametrize('writing', WRITINGS)
def test_frames_are_those_of_sequential_decoding(tmp_path, writing, suffix):
    if (writing, suffix) == ('variable_rate', '.avi'):
        suffix = '.mov'  # AVI has no times
    path = write_video(tmp_path / f'clip{suffix}', moving_frames(70), **WRITINGS[writing])
    expected = sequential(path)
    exact_in_decord = suffix != '.avi' and writing != 'open_groups'
    for decoder in ('auto', *DECODERS) if exact_in_decord else ('auto', 'pyav'):
        reader = open_video(path, decoder)
        assert len(reader) == len(expected) == 70
        for indices in ([69], [0], [35, 5, 5, 62], range(70), [19, 20, 21, 39, 40, 41]):
            np.testing.assert_allclose(reader.frames(indices).astype(int), expected[list(indices)], atol=2)


@pytest.mark.parametrize('size', [(50, 66), (17, 33), (144, 176)])
@pytest.mark.parametrize('n', [1, 2, 13])
def test_sizes_and_lengths(tmp_path, size, n):
    path = write_video(tmp_path / 'clip.mp4', moving_frames(n, *size), fps=12)
    for decoder in DECODERS:
        reader = open_video(path, decoder)
        assert len(reader) == n and reader.fps == pytest.approx(12)
        frames = reader.frames(range(n))
        assert frames.shape == (n, *size, 3)
        np.testing.assert_allclose(frames.astype(int), sequential(path), atol=2)


@pytest.mark.parametrize('suffix', ['.ts', '.avi'])
def test_containers_that_decord_refuses(tmp_path, suffix):
    path = write_video(tmp_path / f'clip{suffix}', moving_frames(60), bf='3', g='20')
    expected = sequential(path)
    assert np.array_equal(open_video(path).frames([50, 0, 25, 59]), expected[[50, 0, 25, 59]])
    with pytest.raises(VideoError, match='decord cannot seek exactly'):
        open_video(path, 'decord')


def test_open_groups_that_decord_refuses(tmp_path):
    path = write_video(tmp_path / 'clip.mp4', moving_frames(70), **WRITINGS['open_groups'])
    with pytest.raises(VideoError, match='clip.mp4: decord cannot seek exactly in its open groups'):
        open_video(path, 'decord')


@pytest.mark.parametrize('degrees', [90, 180, 270])
def test_pictures_are_upright(tmp_path, degrees):
    path = turn(write_video(tmp_path / 'phone.mp4', moving_frames(8)), degrees)
    frames = open_video(path).frames([2, 7])
    assert np.array_equal(frames, np.rot90(sequential(path)[[2, 7]], -degrees // 90, axes=(1, 2)))


def unlike_frames(n, height=48, width=64):
    """Frames whose four corners differ: no two of the eight ways to turn and mirror them look alike."""
    frames = moving_frames(n, height, width)
    frames[:, : height // 4, : width // 4], frames[:, : height // 4, -width // 4 :] = 250, 5
    return frames


def by_hand(frame, a, b, c, d):
    """A frame whose every pixel is moved to where a matrix of right angles shows it."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width]
    right, down = a * x + c * y, b * x + d * y
    moved = np.empty(((width, height) if a == 0 else (height, width)) + (3,), np.uint8)
    moved[down - down.min(), right - right.min()] = frame
    return moved


RIGHT_ANGLES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize('suffix', ['.mp4', '.mov'])
@pytest.mark.parametrize('matrix', RIGHT_ANGLES)
def test_pictures_are_shown_as_players_do(tmp_path, matrix, suffix):
    path = show_by(write_video(tmp_path / f'clip{suffix}', unlike_frames(30), g='10'), *matrix)
    expected = np.stack([by_hand(frame, *matrix) for frame in sequential(path)])
    for decoder in ('auto', 'pyav'):
        frames = open_video(path, decoder).frames([0, 25, 3])
        assert frames.shape[1:3] == ((64, 48) if matrix[0] == 0 else (48, 64))
        np.testing.assert_allclose(frames.astype(int), expected[[0, 25, 3]], atol=2)
    if matrix == (1, 0, 0, 1):
        open_video(path, 'decord')
    else:
        with pytest.raises(VideoError, match='clip.*: decord cannot turn and mirror its pictures as players do'):
            open_video(path, 'decord')


def as_ffmpeg_does(path, *filters):
    """The first frame through ffmpeg's own filters."""
    import av

    with av.open(str(path)) as container:
        graph, stream = av.filter.Graph(), container.streams.video[0]
        chain = [graph.add(*filter) for filter in (*filters, ('format', 'rgb24'), ('buffersink', None))]
        graph.link_nodes(graph.add_buffer(template=stream, time_base=stream.time_base), *chain).configure()
        graph.vpush(next(container.decode(stream)))
        return graph.vpull().to_ndarray(format='rgb24')


def turned(degrees, mirror=1):
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return cosine, sine, -mirror * sine, mirror * cosine


AUTOROTATE = {
    'nearly 90': (turned(89.7), [('transpose', 'clock')]),
    'nearly 180': (turned(180.4), [('hflip', None), ('vflip', None)]),
    'nearly 270, mirrored': (turned(270.3, -1), [('transpose', 'clock_flip')]),
    'nearly 0, mirrored': (turned(-0.4, -1), [('vflip', None)]),
    'one degree': (turned(1), []),
    'one degree less': (turned(-1), [('rotate', '359*PI/180')]),
    'thirty degrees': (turned(30), [('rotate', '30*PI/180')]),
    'two hundred degrees': (turned(200), [('rotate', '200*PI/180')]),
    'larger across than along': ((0, 3, -0.5, 0), [('transpose', 'clock')]),
    'half as large': ((-0.5, 0, 0, 0.5), [('hflip', None)]),
    'flat': ((0, 0, 0, -1), []),
    'nothing': ((0, 0, 0, 0), []),
}


@pytest.mark.parametrize('name', AUTOROTATE)
def test_other_matrices_are_taken_as_ffmpegs_autorotate_does(tmp_path, name):
    matrix, filters = AUTOROTATE[name]
    path = show_by(write_video(tmp_path / 'clip.mp4', unlike_frames(3)), *matrix)
    expected = as_ffmpeg_does(path, *filters)
    found = open_video(path).frames([0])[0]
    assert found.shape == expected.shape
    # Colours are interpolated before or after the turn.
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_pictures_are_mirrored_where_the_stream_says_so(tmp_path):
    """Not the container: H.264 has a message for it, at key frames."""
    import av

    plain, path = write_video(tmp_path / 'plain.mp4', unlike_frames(12)), tmp_path / 'clip.mp4'
    with av.open(str(plain)) as source, av.open(str(path), 'w') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        flip = av.BitStreamFilterContext('h264_metadata=display_orientation=insert:flip=horizontal', stream)
        for packet in source.demux(video=0):
            for flipped in flip.filter(packet if packet.size else None):
                flipped.stream = stream
                target.mux(flipped)
    frames = open_video(path).frames([0, 11])
    np.testing.assert_allclose(frames.astype(int), sequential(plain)[[0, 11], :, ::-1], atol=2)


@pytest.fixture
def damaged(tmp_path):
    """Paths by what is wrong with them."""
    real = REAL[1].read_bytes()
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'text.mp4').write_text('not a video\n' * 500)
    (tmp_path / 'cut.mp4').write_bytes(real[: len(real) // 2])  # the index, at the end, is gone
    whole = write_video(tmp_path / 'whole.mp4', moving_frames(60, 144, 176), faststart=True).read_bytes()
    (tmp_path / 'cut_frames.mp4').write_bytes(whole[: len(whole) * 2 // 3])  # the index says 60 frames
    start = whole.find(b'mdat') + 8
    (tmp_path / 'zeros.mp4').write_bytes(whole[:start] + bytes(len(whole) - start))
    write_audio(tmp_path / 'sound.mp4')
    (tmp_path / 'folder.mp4').mkdir()
    return tmp_path


CAUSES = dict(
    empty='empty',
    text='cannot be decoded',
    cut='cannot be decoded',
    cut_frames='cannot be decoded|damaged or cut off',
    zeros='cannot be decoded',
    sound='no video stream',
    folder='is not a file',
    missing='no such video',
)


@pytest.mark.parametrize('decoder', ['auto', 'decord', 'pyav'])
@pytest.mark.parametrize('name', CAUSES)
def test_unreadable_files(damaged, name, decoder):
    with pytest.raises(VideoError, match=CAUSES[name]) as caught:
        open_video(damaged / f'{name}.mp4', decoder).frames([0])
    assert f'{name}.mp4' in str(caught.value) and '\n' not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # worker processes hand it on


def test_no_frames(tmp_path):
    """A video stream that nothing was written to."""
    import av

    path = tmp_path / 'none.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = 'yuv420p'
        container.start_encoding()
    for decoder in ('auto', *DECODERS):
        with pytest.raises(VideoError, match='none.mkv'):
            open_video(path, decoder)


def test_damaged_bytes_neither_hang_nor_crash(tmp_path):
    """Each decoder ends with frames or a VideoError, on 24 files with bytes overwritten or cut off."""
    draw = random.Random(0)
    whole = write_video(tmp_path / 'whole.mp4', moving_frames(40, 96, 128), faststart=True, bf='2', g='10').read_bytes()
    paths = []
    for number in range(24):
        content = bytearray(whole)
        for _ in range((1, 20, 300)[number % 3]):
            content[draw.randrange(len(content))] = draw.randrange(256)
        paths.append(tmp_path / f'{number}.mp4')
        paths[-1].write_bytes(content[: draw.randrange(100, len(content))] if number % 4 == 0 else content)
    code = (
        'import sys\nfrom fewtokens.retrieval.decode import VideoError, open_video\n'
        'for path in sys.argv[1:]:\n    for decoder in ("decord", "pyav"):\n        try:\n'
        '            reader = open_video(path, decoder)\n            reader.frames([len(reader) - 1, 0])\n'
        '        except VideoError:\n            print("refused")\n        else:\n            print("read")\n'
    )
    result = subprocess.run([sys.executable, '-c', code, *paths], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    outcomes = result.stdout.split()
    assert len(outcomes) == 48 and {'refused', 'read'} == set(outcomes)


def test_wrong_calls(tmp_path):
    path = write_video(tmp_path / 'clip.mp4', moving_frames(5))
    with pytest.raises(ValueError, match="decoder 'opencv' must be one of auto, decord, pyav"):
        open_video(path, 'opencv')
    for decoder in DECODERS:
        for wrong in (5, -1):
            with pytest.raises(IndexError, match=f'frame {wrong} of a video of 5'):
                open_video(path, decoder).frames([0, wrong])
        with pytest.raises(IndexError, match='no frame'):
            open_video(path, decoder).frames([])


@pytest.mark.parametrize(('decoder', 'module', 'extra'), [('pyav', 'av', 'video'), ('decord', 'decord', 'decord')])
def test_missing_decoder(tmp_path, monkeypatch, decoder, module, extra):
    path = write_video(tmp_path / 'clip.mp4', moving_frames(5))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'fewtokens\[{extra}\]'):
        open_video(path, decoder)


def test_auto_is_pyav_whatever_the_file_and_whatever_is_installed(tmp_path, monkeypatch):
    paths = [write_video(tmp_path / f'clip{suffix}', moving_frames(5)) for suffix in ('.mp4', '.mkv', '.avi')]
    pictures = [open_video(path, 'pyav').frames([0, 4]) for path in paths]
    monkeypatch.setitem(sys.modules, 'decord', SimpleNamespace())
    for path, expected in zip(paths, pictures):
        assert np.array_equal(open_video(path).frames([0, 4]), expected)
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(ImportError, match='PyAV is missing'):
        open_video(paths[0])
