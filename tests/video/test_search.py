"""The index itself, with a stand-in for model and decoder: a video is a text file, its embedding follows from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from fewtokens.retrieval.decode import VideoError
from fewtokens.search import indexing
from fewtokens.search.faiss_index import build_index, read_index, write_index
from fewtokens.search.index import VideoIndex
from fewtokens.search.indexing import find_videos

MODEL = dict(model=dict(type='Stub', width=8), weights='1234', checkpoint='a.pth')


class Load:
    def __call__(self, results):
        with open(results['video_path'], 'rb') as file:
            content = file.read()
        if content.startswith(b'broken'):
            raise VideoError(f'{results["video_path"]} is broken')
        return dict(frames=np.frombuffer(content[:1] * 12, np.uint8).reshape(1, 2, 2, 3).copy())


class Encode:
    """Counts what it encodes; `limit` stands for whatever interrupts an indexing."""

    def __init__(self, limit=None):
        self.seen, self.limit = 0, limit

    def __call__(self, videos):
        if self.limit is not None and self.seen + len(videos) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(videos)
        return torch.stack([embedding(int(video[0, 0, 0, 0])) for video in videos])


def embedding(value, dimensions=8):
    generator = torch.Generator().manual_seed(value)
    return torch.nn.functional.normalize(torch.randn(dimensions, generator=generator), dim=0)


def update(index, folder, encode=None, model=MODEL, **options):
    options = dict(batch=2, workers=0, progress=False) | options
    return index.update(folder, encode or Encode(), Load(), model, **options)


def summary(result):
    return result.added, result.changed, result.removed, result.total


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'videos'
    (folder / 'more').mkdir(parents=True)
    for name, content in {'a.mp4': 'a', 'b.MKV': 'b', 'more/c.mp4': 'c', 'd.webm': 'd', 'e.avi': 'e'}.items():
        (folder / name).write_text(content)
    (folder / 'notes.txt').write_text('no video')
    (folder / '.hidden.mp4').write_text('h')
    return folder


@pytest.fixture
def index(tmp_path):
    return VideoIndex(tmp_path / 'index')


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
from test_search import Encode, VideoIndex, update

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
    command = [sys.executable, str(script), os.path.dirname(__file__), str(folder), str(index.path)]
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


def names_in(folder):
    return [file.name for file in find_videos(folder)]


def test_links_to_folders_are_followed(index, folder, tmp_path):
    outside = tmp_path / 'outside'
    (outside / 'within').mkdir(parents=True)
    for name, content in {'f.mp4': 'f', 'within/g.mp4': 'g', 'within/.hidden.mp4': 'h'}.items():
        (outside / name).write_text(content)
    (folder / 'linked').symlink_to(outside)
    (folder / 'h.mp4').symlink_to(outside / 'f.mp4')
    own = ['a.mp4', 'b.MKV', 'd.webm', 'e.avi', 'h.mp4']
    linked = ['linked/f.mp4', 'linked/within/g.mp4']
    assert names_in(folder) == [*own, *linked, 'more/c.mp4']
    update(index, folder)
    assert index.find(embedding(ord('g')), 1)[0].path == folder / 'linked/within/g.mp4'
    assert summary(update(index, folder)) == (0, 0, 0, 8)
    (tmp_path / 'link').symlink_to(folder)
    assert names_in(tmp_path / 'link') == names_in(folder)
    (folder / '.linked').symlink_to(outside)
    (folder / 'linked').unlink()
    assert names_in(folder) == [*own, 'more/c.mp4']


def test_links_that_lead_back_end(folder, tmp_path):
    """Twenty that lead to each other: as many ways as there are orders of them."""
    own = names_in(folder)
    for number in range(20):
        (folder / f'{number}').mkdir()
        (folder / f'{number}/up').symlink_to(folder)
        for other in range(20):
            (folder / f'{number}/{other}').symlink_to(folder / f'{other}')
    (folder / 'itself').symlink_to('itself')
    (folder / 'a link').symlink_to('more')
    assert names_in(folder) == own, 'each under its own name'
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/back').symlink_to(tmp_path)
    (tmp_path / 'outside/f.mp4').write_text('f')
    (folder / 'out').symlink_to(tmp_path / 'outside')
    (folder / 'out again').symlink_to(tmp_path / 'outside')
    assert names_in(folder) == sorted([*own, 'out/f.mp4'])


def test_a_link_that_leads_nowhere_is_no_reason_to_forget_a_video(index, folder, tmp_path):
    (tmp_path / 'f.mp4').write_text('f')
    (folder / 'f.mp4').symlink_to(tmp_path / 'f.mp4')
    (folder / 'notes').symlink_to(tmp_path / 'gone')
    assert summary(update(index, folder)) == (6, 0, 0, 6)
    (tmp_path / 'f.mp4').unlink()
    with pytest.raises(ValueError, match='f.mp4.*; --skip-unreadable leaves such videos out'):
        update(index, folder)
    result = update(index, folder, skip_unreadable=True)
    assert summary(result) == (0, 0, 1, 5) and list(result.unreadable) == ['f.mp4']


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


def test_faiss_says_that_the_disk_is_full(tmp_path):
    vectors = unit(np.random.default_rng(0).normal(size=(50, 32)))
    for flat_up_to in (50, 49):
        index = build_index(vectors, flat_up_to)
        with pytest.raises(OSError, match='No space left on device'):
            write_index(index, Path('/dev/full'))
        write_index(index, tmp_path / 'index.faiss')
        for found, expected in zip(read_index(tmp_path / 'index.faiss').search(vectors, 3), index.search(vectors, 3)):
            np.testing.assert_array_equal(found, expected)


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


def test_inverted_lists_find_what_the_flat_index_finds():
    """Texts keep to a region of their own, away from the videos, as CLIP's do."""
    random = np.random.default_rng(0)
    mixing, videos_at, texts_at = random.normal(size=(16, 32)) / 4, *random.normal(size=(2, 32))
    meaning = random.normal(size=(4000, 16))
    videos = unit(1.2 * videos_at + meaning @ mixing + 0.4 * random.normal(size=(4000, 32)))
    texts = unit(1.2 * texts_at + (meaning[:200] + 0.5 * random.normal(size=(200, 16))) @ mixing)
    flat, lists = build_index(videos), build_index(videos, flat_up_to=3999)
    assert type(flat).__name__ == 'IndexFlatIP' and type(lists).__name__ == 'IndexIVFFlat'
    scores, expected = flat.search(texts, 10)
    np.testing.assert_allclose(scores, -np.sort(-(texts @ videos.T), axis=1)[:, :10], atol=1e-5)
    _, found = lists.search(texts, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected, found)])
    assert recall >= 0.95


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


TWO = """
import sys, torch
from fewtokens.search.processes import join
sys.path.insert(0, sys.argv[1])
from test_search import Encode, VideoIndex, update
if __name__ == '__main__':
    join(sys.argv[4])
    encode = Encode()
    result = update(VideoIndex(sys.argv[3]), __import__('pathlib').Path(sys.argv[2]), encode)
    print('seen', encode.seen, 'of', result.total)
"""


def test_processes_of_slurm_share_the_work(index, folder, tmp_path):
    """Two processes with slurm's variables, on a CPU: two parts, one index."""
    import socket

    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = str(free.getsockname()[1])
    script = tmp_path / 'two.py'
    script.write_text(TWO)
    slurm = dict(SLURM_NTASKS='2', SLURM_NODELIST='localhost', MASTER_ADDR='localhost', MASTER_PORT=port)
    command = [sys.executable, str(script), os.path.dirname(__file__), str(folder), str(tmp_path / 'two'), 'slurm']
    both = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | slurm | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), OMP_NUM_THREADS='1'),
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out.strip() for out, _ in outputs] == ['seen 3 of 5', 'seen 2 of 5'], outputs
    update(index, folder)
    ours, theirs = (json.loads((path / 'manifest.json').read_text()) for path in (tmp_path / 'two', index.path))
    assert ours == theirs
    parts = [np.load(path / 'generation-1/embeddings.npy') for path in (tmp_path / 'two', index.path)]
    np.testing.assert_allclose(*parts, atol=1e-6)
