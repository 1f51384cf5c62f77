"""Writes captioned clips to disk in MSR-VTT's layout, which `fewtokens.retrieval.datasets.MSRVTT` reads."""

import csv
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fewtokens.measure.files import write_together, write_whole
from fewtokens.measure.progress import progress_bar

from .captions import caption_clip, tokenizer_file
from .clips import RATE, Clip, compose_clip, compose_pair, compose_single, render_clip
from .textures import load_textures

SPLITS = dict(training='train', validation='validate', test='test')
"""Our names of the splits, and MSR-VTT's."""
CAPTIONS = dict(training=10, validation=2, test=1)
"""Captions a clip."""
REVERSED = '-reversed'
"""What the id of a clip's reverse ends with."""


def _one(compose: Callable[[np.random.Generator], Clip], rng: np.random.Generator) -> tuple[Clip]:
    return (compose(rng),)


KINDS = dict(clips=partial(_one, compose_clip), events=partial(_one, compose_single), order=compose_pair)
"""What one number of a data set stands for: clips of several events, of one, or a clip and its reverse."""


def write_msrvtt(
    out: str | os.PathLike,
    counts: dict[str, int],
    kind: str = 'clips',
    size: int = 64,
    seed: int = 0,
    processes: int = 1,
) -> None:
    """Writes `MSRVTT_data.json`, both csv files of the split 1k-A, and `MSRVTT_Videos/ID.mp4` below `out`.

    Beside them, `captions.bpe.gz` is a tokenizer's file with every word of the captions.

    A clip depends on the seed, the kind, its split and its number alone: a larger data set begins with the smaller one.
    Videos that are there stay as they are, so that a second call goes on where the first was interrupted; another
    seed, kind or size needs another folder.

    Args:
        out: folder.
        counts: number of clips, or of pairs, a split: dict(training=6000, validation=200, test=300).
        kind: one of `KINDS`. Captions of 'order' tell what comes first and which way things move; those of 'clips' and
            'events' do so every second time in training, else they list.
        size: side of a frame in pixels.
        seed: seed of the whole data set.
        processes: how many draw at the same time.

    Raises:
        ValueError: a setting is out of range, or the folder has another data set.
    """
    _check(counts, kind, size, processes)
    folder = Path(out) / 'MSRVTT_Videos'
    folder.mkdir(parents=True, exist_ok=True)
    _claim(Path(out) / 'clips.json', dict(kind=kind, size=size, seed=seed))
    jobs = [(kind, split, number) for split, count in counts.items() for number in range(count)]
    entries = list(_with_progress(partial(_write_number, folder, size, seed), jobs, processes))
    annotations = _annotations([entry for part in entries for entry in part], Path(out))
    write_together({**annotations, Path(out) / 'captions.bpe.gz': tokenizer_file()})


def describe(kind: str, split: str, number: int, seed: int = 0) -> Iterator[tuple[str, Clip, list[str]]]:
    """What stands behind a number of a data set: id, clip and captions, of the clip and perhaps of its reverse."""
    rng = np.random.default_rng([seed, zlib.crc32(f'{kind}/{split}'.encode()), number])
    for clip, end in zip(KINDS[kind](rng), ('', REVERSED)):
        order = kind == 'order'
        captions = [
            caption_clip(rng, clip, ordered=order or (split == 'training' and turn % 2 == 1))
            for turn in range(1 if order else CAPTIONS[split])
        ]
        yield f'{split}{number}{end}', clip, captions


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Writes frames [T, H, W, 3] uint8 as H.264; H and W are even."""
    import av

    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=RATE, options=dict(crf='18', preset='veryfast', g='12'))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        # As many threads as cores, which x264 starts otherwise, take longer than so few pixels.
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def _write_number(folder: Path, size: int, seed: int, job: tuple[str, str, int]) -> list[tuple[str, str, list[str]]]:
    entries = []
    for name, clip, captions in describe(*job, seed=seed):
        path = folder / f'{name}.mp4'
        if not path.is_file():
            frames = render_clip(clip, _textures(), size)
            write_whole(path, lambda temporary, frames=frames: write_clip(temporary, frames))
        entries.append((name, job[1], captions))
    return entries


_textures = cache(load_textures)


def _with_progress(work: Callable, jobs: list, processes: int) -> Iterator:
    with ExitStack() as stack:
        if processes == 1:
            results = map(work, jobs)
        else:
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context('spawn')))
            results = pool.map(work, jobs, chunksize=16)
        bar = stack.enter_context(progress_bar(len(jobs), 'drawing clips'))
        for result in results:
            yield result
            bar.update()


def _annotations(entries: list[tuple[str, str, list[str]]], out: Path) -> dict[Path, bytes]:
    """The annotation files' content."""
    videos = [dict(video_id=name, split=SPLITS[split]) for name, split, _ in entries]
    sentences = [dict(video_id=name, caption=caption) for name, _, captions in entries for caption in captions]
    sentences = [dict(sentence, sen_id=number) for number, sentence in enumerate(sentences)]
    training = [[name] for name, split, _ in entries if split != 'test']
    test = [(name, captions[0]) for name, split, captions in entries if split == 'test']
    rows = [(f'ret{number}', f'msr{name}', name, caption) for number, (name, caption) in enumerate(test)]
    return {
        out / 'MSRVTT_data.json': json.dumps(dict(videos=videos, sentences=sentences)).encode(),
        out / 'MSRVTT_train.9k.csv': _csv([['video_id'], *training]),
        out / 'MSRVTT_JSFUSION_test.csv': _csv([('key', 'vid_key', 'video_id', 'sentence'), *rows]),
    }


def _csv(rows: list) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().encode()


def _claim(path: Path, settings: dict) -> None:
    """Notes what a folder's clips are; raises a ValueError if they are others."""
    if path.is_file() and json.loads(path.read_text()) != settings:
        raise ValueError(f'{str(path.parent)!r} has other clips, {path.read_text()}: name another folder')
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(settings)))


def _check(counts: dict[str, int], kind: str, size: int, processes: int) -> None:
    if kind not in KINDS:
        raise ValueError(f'kind {kind!r} must be one of {", ".join(KINDS)}')
    if unknown := set(counts) - set(SPLITS):
        raise ValueError(f'there is no split {", ".join(sorted(unknown))}; there are {", ".join(SPLITS)}')
    if min(counts.values(), default=0) < 0:
        raise ValueError(f'{counts}: the number of clips is at least 0')
    if size < 32 or size % 2:
        raise ValueError(f'size={size}: the side of a frame is an even number of pixels, at least 32')
    if processes < 1:
        raise ValueError(f'processes={processes} must be at least 1')
