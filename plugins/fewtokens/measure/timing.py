"""Timing that a drifting machine can't fool: every row once a round, compared within the round."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .progress import progress_bar


@dataclass(frozen=True)
class Timing:
    """Of one row: milliseconds' median and 20th and 80th percentile, and how many times faster than the reference."""

    ms: float
    ms_p20: float
    ms_p80: float
    speedup: float
    speedup_p20: float
    speedup_p80: float


def time_interleaved(
    rows: dict[str, Callable[[], AbstractContextManager]],
    call: Callable[[], Any],
    reference: str,
    rounds: int = 10,
    warmup: int = 2,
    device: torch.device | str = 'cpu',
) -> dict[str, Timing]:
    """Times a call in each row's context, in turn: A B C A B C …

    Args:
        rows: name and what makes the context to call in, such as an attachment. Entering and leaving is not timed.
        call: what is timed.
        reference: the row that the others are compared with, round by round.
        rounds: how many times each row is timed, after `warmup` that are not counted.
        device: a CUDA device is waited for. On one thread of a CPU it is the process's own time that counts, in which
            other programs have no part.
    """
    seconds = seconds_interleaved(rows, call, rounds, warmup, device)
    return {name: summarize(times, seconds[reference]) for name, times in seconds.items()}


def seconds_interleaved(
    rows: dict[str, Callable[[], AbstractContextManager]],
    call: Callable[[], Any],
    rounds: int,
    warmup: int,
    device: torch.device | str = 'cpu',
) -> dict[str, np.ndarray]:
    """What each row took in each round, [rounds]: see `time_interleaved`."""
    device = torch.device(device)
    alone = device.type == 'cpu' and torch.get_num_threads() == 1
    now = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    with progress_bar((rounds + warmup) * len(rows), 'timing') as bar:
        for number in range(warmup + rounds):
            for name, context in rows.items():
                with context():
                    elapsed = _time(call, device, now)
                if number >= warmup:
                    seconds[name].append(elapsed)
                bar.update()
    return {name: np.array(times) for name, times in seconds.items()}


def _time(call: Callable[[], Any], device: torch.device, now: Callable[[], float]) -> float:
    _wait(device)
    start = now()
    call()
    _wait(device)
    return now() - start


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def summarize(seconds: np.ndarray, reference: np.ndarray) -> Timing:
    """Of a row's seconds, round by round, beside the reference's."""
    return Timing(
        *(float(v) for v in np.percentile(1e3 * seconds, (50, 20, 80))),
        *(float(v) for v in np.percentile(reference / seconds, (50, 20, 80))),
    )
