"""The index itself, with a stand-in for model and decoder: a video is a text file, its embedding follows from it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import stub_index
import torch
from filelock import FileLock
from stub_index import MODEL, Encode, Load, embedding, summary, update

from fewtokens.search import indexing
from fewtokens.search.index import VideoIndex


def test_finds_the_nearest_videos(index, folder):
    assert summary(update(index, folder)) == (5, 0, 0, 5)
    hits = index.find(embedding(ord('c')), 3)
    assert hits[0].path == folder / 'more/c.mp4' and hits[0].score == pytest.approx(1, abs=1e-6)
    all_hits = index.find(3 * embedding(ord('c')), 99)
    assert len(all_hits) == 5 and all_hits[:3] == hits
    expected = sorted((float(embedding(ord(c)) @ embedding(ord('c'))) for c in 'abcde'), reverse=True)
    assert [hit.score for hit in all_hits] == pytest.approx(expected, abs=1e-6)
    again = VideoIndex(index.path)
    assert len(again) == 5 and again.find(embedding(ord('c')), 3) == hits and again.model == MODEL


def test_encodes_only_what_is_new_or_changed(index, folder):
    update(index, folder)
    encode = Encode()
    assert summary(update(index, folder, encode)) == (0, 0, 0, 5) and encode.seen == 0
    (folder / 'f.mp4').write_text('f')
    (folder / 'a.mp4').write_text('another')
    (folder / 'b.MKV').unlink()
    assert summary(update(index, folder, encode)) == (1, 1, 1, 5) and encode.seen == 2
    assert not [hit for hit in index.find(embedding(ord('b')), 9) if hit.path.name == 'b.MKV']
    assert index.find(embedding(ord('f')), 1)[0].path == folder / 'f.mp4'
    os.utime(folder / 'd.webm', (0, 0))
    assert summary(update(index, folder, encode)) == (0, 1, 0, 5) and encode.seen == 3
    assert [file.name for file in index.path.glob('generation-*')] == ['generation-3']


def test_an_update_equals_an_index_made_at_once(index, folder, tmp_path):
    (folder / 'z.mp4').write_text('z')
    hidden = folder / 'a.mp4'
    content = hidden.read_text()
    hidden.unlink()
    update(index, folder)
    hidden.write_text(content)
    (folder / 'z.mp4').unlink()
    update(index, folder)
    fresh = VideoIndex(tmp_path / 'fresh')
    update(fresh, folder)
    ours, theirs = (json.loads((i.path / 'manifest.json').read_text()) for i in (index, fresh))
    assert ours['files'] == theirs['files'] and len(ours['files']) == 5
    np.testing.assert_array_equal(
        np.load(index.path / 'generation-2/embeddings.npy'), np.load(fresh.path / 'generation-1/embeddings.npy')
    )


def test_goes_on_after_an_interruption(index, folder):
    with pytest.raises(KeyboardInterrupt):
        update(index, folder, Encode(limit=2))
    with pytest.raises(ValueError, match='has not ended'):
        VideoIndex(index.path).find(embedding(0))
    encode = Encode()
    assert summary(update(VideoIndex(index.path), folder, encode)) == (5, 0, 0, 5)
    assert encode.seen == 3 and not (index.path / 'shards').exists()


def test_an_old_index_works_while_a_new_one_is_being_made(index, folder):
    """And half-written files are no harm."""
    update(index, folder)
    for name in 'fghi':
        (folder / f'{name}.mp4').write_text(name)
    with pytest.raises(KeyboardInterrupt):
        update(index, folder, Encode(limit=2))
    (index.path / 'shards/.0-abc.npz').write_bytes(b'half')
    (index.path / 'shards/damaged.npz').write_bytes(b'half')
    (index.path / 'generation-2').mkdir()
    assert len(VideoIndex(index.path).find(embedding(0), 20)) == 5
    encode = Encode()
    assert summary(update(VideoIndex(index.path), folder, encode)) == (4, 0, 0, 9) and encode.seen == 2


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stub_index import Encode, update

from fewtokens.search.index import VideoIndex

class Killed(Encode):
    def __call__(self, videos):
        if self.seen == 80:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(videos)

update(VideoIndex(sys.argv[3]), Path(sys.argv[2]), Killed(), batch=10)
"""


def test_goes_on_after_sigkill(index, tmp_path):
    """Of a hundred videos seventy were committed, the first ten after 64, and eighty encoded."""
    folder = tmp_path / 'many'
    folder.mkdir()
    for number in range(100):
        (folder / f'{number:03}.mp4').write_text(chr(number))
    script = tmp_path / 'killed.py'
    script.write_text(KILLED)
    command = [sys.executable, str(script), os.path.dirname(stub_index.__file__), str(folder), str(index.path)]
    killed = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert killed.returncode == -9, killed.stderr
    encode = Encode()
    assert summary(update(VideoIndex(index.path), folder, encode)) == (100, 0, 0, 100) and encode.seen == 30
    assert index.path.joinpath('generation-1').is_dir() and not (index.path / 'shards').exists()


def test_unreadable_videos(index, folder):
    (folder / 'bad.mp4').write_text('broken')
    encode = Encode()
    with pytest.raises(ValueError, match='bad.mp4 is broken; --skip-unreadable'):
        update(index, folder, encode, workers=1)
    result = update(index, folder, encode, skip_unreadable=True)
    assert summary(result) == (5, 0, 0, 5) and list(result.unreadable) == ['bad.mp4']

    class Refuses(Load):
        def __call__(self, results):
            raise AssertionError('nothing is to be decoded again')

    again = index.update(folder, encode, Refuses(), MODEL, workers=0, skip_unreadable=True, progress=False)
    assert again.unreadable == result.unreadable
    with pytest.raises(ValueError, match='bad.mp4'):
        update(index, folder, encode)
    (folder / 'bad.mp4').write_text('mended')
    result = update(index, folder, encode, skip_unreadable=True)
    assert summary(result) == (1, 0, 0, 6) and not result.unreadable
    for file in folder.rglob('*.*'):
        file.write_text('broken')
    with pytest.raises(ValueError, match='none of the 6 videos can be read'):
        update(index, folder, skip_unreadable=True)
    assert len(VideoIndex(index.path)) == 6


def test_another_model_is_refused(index, folder):
    update(index, folder)
    update(index, folder, model=MODEL | dict(checkpoint='moved.pth'))
    assert index.model['checkpoint'] == 'moved.pth'
    with pytest.raises(ValueError, match='written by another model: model.width is 16, was 8; weights is 5678, was 12'):
        update(index, folder, model=dict(model=dict(type='Stub', width=16), weights='5678'))
    assert len(VideoIndex(index.path)) == 5


LATE = 'SegmentClustering(segments=1, clusters=2, after=8)'


@pytest.mark.parametrize(
    'known, given',
    [
        (
            'SegmentClustering(after=1, clusters=3, segments=2, p=2.0)',
            'SegmentClustering(segments=2, clusters=3, after=1)',
        ),
        (
            ['SegmentClustering(segments=2, clusters=3)', LATE],
            ['SegmentClustering(segments=2, clusters=3, after=6)', LATE],
        ),
    ],
)
def test_a_clustering_is_the_same_however_an_older_index_has_it_written(index, folder, known, given):
    update(index, folder, model=dict(model=dict(clustering=known)))
    assert summary(update(index, folder, model=dict(model=dict(clustering=given)))) == (0, 0, 0, 5)
    other = 'SegmentClustering(segments=2, clusters=4, after=1)'
    with pytest.raises(
        ValueError, match=r'another model: model.clustering is SegmentClustering\(segments=2, clusters=4'
    ):
        update(index, folder, model=dict(model=dict(clustering=other)))


def test_another_folder_is_refused_and_a_moved_one_is_not(index, folder, tmp_path):
    update(index, folder)
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'a.mp4').write_text('a')
    with pytest.raises(ValueError, match='is the index of'):
        update(index, other)
    moved = folder.rename(tmp_path / 'moved')
    encode = Encode()
    update(index, moved, encode)
    assert encode.seen == 0 and index.find(embedding(ord('a')), 1)[0].path == moved / 'a.mp4'


class Wide(Encode):
    def __call__(self, videos):
        super().__call__(videos)
        return torch.stack([embedding(int(video[0, 0, 0, 0]), 4096) for video in videos])


def test_what_a_full_disk_left_unwritten_is_named(index, folder, monkeypatch, capsys):
    from disk import room_for  # other processes import this file, without the folder of that one

    monkeypatch.setattr(indexing, 'SHARD', 2)
    update(index, folder, Wide())
    hits = index.find(embedding(ord('c'), 4096), 9)
    (folder / 'f.mp4').write_text('f')
    os.utime(folder / 'a.mp4', (0, 0))

    def everything():
        return sorted(path.relative_to(index.path).as_posix() for path in index.path.rglob('*'))

    before = everything()
    for size, name, encoded in (
        (100, 'manifest.json', 0),
        (30_000, r'shards/\w+.npz', 2),
        (90_000, 'embeddings.npy', 2),
    ):
        encode = Wide()
        with room_for(size), pytest.raises(OSError, match=rf"File too large: '{index.path}.*{name}'"):
            update(index, folder, encode, progress=True)
        assert encode.seen == encoded
        bar = capsys.readouterr().err
        assert bar.endswith('\n') == bool(encoded), 'the message has a line of its own'
        assert [name for name in everything() if not name.startswith('shards')] == before
        assert VideoIndex(index.path).find(embedding(ord('c'), 4096), 9) == hits
    encode = Wide()
    assert summary(update(index, folder, encode)) == (1, 1, 0, 6) and encode.seen == 0
    assert VideoIndex(index.path).find(embedding(ord('f'), 4096), 1)[0].path == folder / 'f.mp4'


def test_one_writer_at_a_time(index, folder):
    index.path.mkdir()
    with FileLock(index.path / '.lock'), pytest.raises(ValueError, match='another process is writing'):
        update(index, folder)
    update(index, folder)


def test_bad_folders(index, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        update(index, tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no videos'):
        update(index, tmp_path / 'empty')
    assert not index.path.exists()


def test_damaged_files_are_named(index, folder):
    with pytest.raises(FileNotFoundError, match='no video index'):
        index.find(embedding(0))
    update(index, folder)
    (index.path / 'generation-1/index.faiss').write_bytes(b'nothing that faiss wrote')
    with pytest.raises(ValueError, match='index.faiss is damaged; index the videos again'):
        VideoIndex(index.path).find(embedding(0))
    encode = Encode()
    update(VideoIndex(index.path), folder, encode)
    assert encode.seen == 0 and len(VideoIndex(index.path).find(embedding(0))) == 5
    (index.path / 'generation-2/embeddings.npy').write_bytes(b'')
    (folder / 'f.mp4').write_text('f')
    with pytest.raises(ValueError, match='embeddings.npy is damaged'):
        update(VideoIndex(index.path), folder)
    for text in ('{"format": 1', '[]', '{"format": 1, "files": [], "unreadable": [], "surprise": 1}', '\x00'):
        (index.path / 'manifest.json').write_text(text)
        with pytest.raises(ValueError, match='manifest.json is damaged'):
            VideoIndex(index.path)
    (index.path / 'manifest.json').write_text('{"format": 99}')
    with pytest.raises(ValueError, match='format 99'):
        VideoIndex(index.path)


def test_bad_queries(index, folder):
    update(index, folder)
    with pytest.raises(ValueError, match='at least 1, not 0'):
        index.find(embedding(0), 0)
    for query in (embedding(0, 9), embedding(0)[None], torch.full((8,), float('nan'))):
        with pytest.raises(ValueError, match='must be .8. and finite'):
            index.find(query)


def test_embeddings_that_are_not_finite_are_refused(index, folder):
    with pytest.raises(ValueError, match='is not finite'):
        update(index, folder, lambda videos: torch.full((len(videos), 8), float('nan')))


def test_a_reader_follows_an_update_that_came_between(index, folder):
    update(index, folder)
    reader = VideoIndex(index.path)
    (folder / 'f.mp4').write_text('f')
    update(index, folder)
    assert reader.find(embedding(ord('f')), 1)[0].path == folder / 'f.mp4'
