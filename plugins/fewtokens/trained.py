"""The forward pass that a backward pass belongs to: under activation checkpointing, blocks run again in it."""

import threading

from .levels import Pass

_LOCK = threading.Lock()


class TrainedPasses:
    """Passes that were trained, as far as they must be known. Copies start empty: a pass belongs to its graph."""

    def __init__(self) -> None:
        self._last: Pass | None = None
        self._unfinished = 0
        self._recomputed: dict[int, Pass] = {}

    def __reduce__(self) -> tuple:
        return TrainedPasses, ()

    def begin(self, state: Pass) -> None:
        """Notes a pass that begins."""
        with _LOCK:
            # A thread that goes on has ended its backward passes.
            self._recomputed = {n: one for n, one in self._recomputed.items() if one.thread != state.thread}
            self._unfinished += state.training
            self._last = state if state.training else self._last if self._unfinished else None

    def find(self, backward: int) -> Pass:
        """The pass whose blocks run again in the backward pass of that number: the only one that there is.

        Raises:
            RuntimeError: there are several, and nothing tells which.
        """
        if backward in self._recomputed:
            return self._recomputed[backward]
        with _LOCK:
            if self._unfinished == 1:
                passes = [] if self._last is None else [self._last]
            elif self._unfinished:
                passes = []
            else:
                # The graph of a pass may be run through again.
                passes = list({id(one): one for one in self._recomputed.values()}.values())
            count, self._unfinished = self._unfinished or len(self._recomputed), 0
            if len(passes) == 1:
                self._recomputed[backward] = passes[0]
                return passes[0]
        raise RuntimeError(
            f'{count} forward passes came before this backward pass: activation checkpointing with fewer tokens works '
            'with one. Run backward after each, or switch checkpointing (with_cp) off'
        )
