"""Decodes videos in other processes: a file that hangs or crashes a decoder costs no more than that file."""

import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from ..measure.files import shown
from ..retrieval.decode import VideoError

Load = Callable[[dict[str, Any]], dict[str, Any]]
TIME_LIMIT = 300.0
"""Seconds for one file. Hours of film on a slow disk take one or two minutes."""
_LONGEST = 10.0**6
"""Seconds that the system can wait for."""


def decode_videos(
    paths: Sequence[Path], load: Load, workers: int, time_limit: float = TIME_LIMIT, ahead: int = 1
) -> Generator[np.ndarray | str, None, None]:
    """Frames [T, H, W, 3] uint8 of each video in order, or the reason why there are none.

    Args:
        load: from `dict(video_path=…)` to one with `frames`.
        workers: processes; 0 decodes in this one, where nothing can end a decoder that hangs.
        time_limit: seconds after which a process that is still at one file is ended, and another takes its place.
        ahead: how many videos are decoded before they are asked for.

    Raises:
        ValueError: a process was killed from outside, as the system does where memory runs out.
        ImportError: the decoder is not installed.
    """
    if workers == 0:
        yield from (_checked(_outcome(load, str(path))) for path in paths)
        return
    decoders = [_Decoder(load, time_limit) for _ in range(min(workers, len(paths)))]
    idle: SimpleQueue[_Decoder] = SimpleQueue()
    for decoder in decoders:
        idle.put(decoder)

    def decode(path: Path) -> np.ndarray | str:
        decoder = idle.get()
        try:
            return decoder.decode(str(path))
        finally:
            idle.put(decoder)

    with ThreadPoolExecutor(workers) as threads:
        try:
            waiting: deque = deque()
            for path in paths:
                waiting.append(threads.submit(decode, path))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for decoder in decoders:
                decoder.close()


class _Decoder:
    """A process that decodes one video at a time; another is started where one has ended."""

    _starting = threading.Lock()
    """A process that starts holds the pipes that are open: none may be between being made and being closed here."""

    _process: Process
    _pipe: Connection

    def __init__(self, load: Load, time_limit: float) -> None:
        self.load, self.time_limit = load, time_limit
        self._closed = False
        self._start()

    def decode(self, path: str) -> np.ndarray | str:
        if not self._process.is_alive():
            self._start()
        try:
            self._pipe.send(path)
            if not self._pipe.poll(min(self.time_limit, _LONGEST)):
                self._end()
                return f'{shown(path)}: was not decoded within {self.time_limit:g} s (--time-limit)'
            outcome = self._pipe.recv()
        except (EOFError, OSError):
            return self._why_it_ended(path)
        return _checked(outcome)

    def close(self) -> None:
        with self._starting:
            self._closed = True
        self._end()

    def _start(self) -> None:
        with self._starting:
            if self._closed:
                return
            self._pipe, theirs = Pipe()
            self._process = Process(target=_serve, args=(theirs, self.load, os.getpid()), daemon=True)
            self._process.start()
            theirs.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.join(10)  # not for ever: one that waits for a broken disk can't be killed

    def _why_it_ended(self, path: str) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code == -signal.SIGKILL and not self._closed:
            raise ValueError(f'a decoding process was killed at {shown(path)}: too little memory?')
        return f'{shown(path)}: crashes the decoder ({f"signal {-code}" if code and code < 0 else f"status {code}"})'


def _serve(pipe: Connection, load: Load, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)  # OpenMP's threads are not there after a fork
    while True:
        pipe.send(_outcome(load, pipe.recv(), remote=True))


def _end_with(parent: int) -> None:
    """Nobody else ends a process whose parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _outcome(load: Load, path: str, remote: bool = False) -> np.ndarray | str | Exception:
    try:
        return load(dict(video_path=path))['frames']
    except (VideoError, OSError) as error:
        return str(error)
    except ImportError as error:
        return error
    except Exception:
        if not remote:
            raise
        # What another process does not see.
        return RuntimeError(f'decoding {shown(path)} failed:\n{traceback.format_exc()}')


def _checked(outcome: np.ndarray | str | Exception) -> np.ndarray | str:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
