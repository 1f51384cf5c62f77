"""Times by the device's own clock, every row once a round."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ...ops import backend
from ..timing import summarize

Call = Callable[[], Any]


def time_calls(calls: dict[str, Call], reference: str, rounds: int = 12, milliseconds: float = 6) -> dict[str, dict]:
    """Times calls in turn: A B C A B C …

    Args:
        calls: by name; each has run before.
        reference: the one that the others are compared with, round by round.
        milliseconds: a call that takes less is timed several times in a row, as a user would run it.

    Returns:
        for each name the fields of `Timing`.
    """
    repeats = {name: max(1, min(50, int(milliseconds / max(_once(call, 2), 1e-3)))) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(_once(call, repeats[name]) / 1e3)
    compared = np.array(seconds[reference])
    return {name: asdict(summarize(np.array(each), compared)) for name, each in seconds.items()}


def _once(call: Call, repeats: int) -> float:
    """Milliseconds of one call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


def captured(call: Call) -> Call:
    """A call as the replay of a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


def in_pytorch(call: Call) -> Call:
    """A call whose ops run in PyTorch's form."""

    def run() -> Any:
        capable = backend._is_capable
        backend._is_capable = lambda device: False
        try:
            return call()
        finally:
            backend._is_capable = capable

    return run


class Clock:
    """How long a benchmark has run, and how long it may."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.monotonic(), seconds

    @property
    def spent(self) -> float:
        return time.monotonic() - self.start

    @property
    def is_over(self) -> bool:
        return self.spent > self.seconds


class Results:
    """Rows, written as they come; what fails is a row that says why."""

    def __init__(self, write: Callable[[list[dict]], None], clock: Clock) -> None:
        self.rows: list[dict] = []
        self.clock = clock
        self._write = write

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        self._write(self.rows)

    @contextmanager
    def soft(self, **row: Any) -> Iterator[None]:
        """Whatever goes wrong inside loses no other row."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip().partition('\n')[0][:300]
            self.add(**row, failure=f'{type(error).__name__}: {reason}')
            torch.cuda.empty_cache()
