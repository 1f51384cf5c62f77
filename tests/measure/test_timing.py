from contextlib import contextmanager

import pytest

from fewtokens.measure import timing
from fewtokens.measure.timing import time_interleaved


@pytest.mark.parametrize('threads, clock', [(1, 'process_time'), (2, 'perf_counter')])
def test_speed_up_is_of_the_same_round(threads, clock, monkeypatch):
    """On a clock that runs by itself: the machine is twice as slow from round to round, and entering takes its time.

    What one thread took is what the process did: the other programs' part of the time isn't its own.
    """
    now, turns = [0.0], []

    @contextmanager
    def context(seconds):
        turns.append(seconds)
        now[0] += 100
        yield
        now[0] += 100

    def call():
        now[0] += turns[-1] * 2 ** ((len(turns) - 1) // 2)

    monkeypatch.setattr(timing.torch, 'get_num_threads', lambda: threads)
    monkeypatch.setattr(timing.time, clock, lambda: now[0])
    rows = {name: (lambda s=s: context(s)) for name, s in dict(slow=0.5, fast=0.125).items()}
    timings = time_interleaved(rows, call, 'slow', rounds=3, warmup=1)
    assert turns == [0.5, 0.125] * 4
    slow, fast = timings['slow'], timings['fast']
    assert (slow.speedup, slow.speedup_p20, slow.speedup_p80) == (1, 1, 1)
    assert (fast.speedup, fast.speedup_p20, fast.speedup_p80) == (4, 4, 4)
    # Of 1, 2 and 4 seconds: the first, of the warm-up, is not counted.
    assert (slow.ms, slow.ms_p20, slow.ms_p80) == pytest.approx((2000, 1400, 3200))
