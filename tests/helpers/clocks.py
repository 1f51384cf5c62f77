"""Made-up time: a machine that takes as long as there is to compute."""

import numpy as np

from fewtokens.measure.macs import counting_macs


class Clock:
    """Measures seconds of one model as `fewtokens.measure.timing.seconds_interleaved` does.

    Args:
        overhead: of every call, as a part of the full model's time.
        noise: of single rounds.

    Attributes:
        calls: the names of the rows that were timed, a list for each time.
    """

    def __init__(self, overhead=0.05, noise=0.0):
        self.overhead, self.noise, self.calls = overhead, noise, []
        self._macs = {}
        self._random = np.random.default_rng(0)

    def __call__(self, rows, call, rounds, warmup, device):
        self.calls.append(list(rows))
        for name, context in rows.items():
            if name not in self._macs:
                with context(), counting_macs() as count:
                    call()
                    self._macs[name] = count()
        full = self._macs['host + sdpa']
        return {
            name: (self._macs[name] / full + self.overhead) * (1 + self.noise * self._random.standard_normal(rounds))
            for name in rows
        }
