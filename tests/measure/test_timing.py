import time

from fewtokens.measure.timing import time_interleaved


def test_speed_up_is_of_the_same_round():
    clock = []

    class Context:
        def __init__(self, seconds):
            self.seconds = seconds

        def __enter__(self):
            clock.append(self.seconds)

        def __exit__(self, *exc):
            time.sleep(0.01)

    rows = {name: (lambda s=s: Context(s)) for name, s in dict(slow=0.02, fast=0.005).items()}
    timings = time_interleaved(rows, lambda: time.sleep(clock[-1]), 'slow', rounds=4, warmup=1)
    assert clock == [0.02, 0.005] * 5
    assert timings['slow'].speedup == 1 and 2 < timings['fast'].speedup < 5
    assert 20 <= timings['slow'].ms < 40 and timings['slow'].ms_p20 <= timings['slow'].ms <= timings['slow'].ms_p80
