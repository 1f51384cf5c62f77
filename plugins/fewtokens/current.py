"""Values of a thread and task."""

import threading
from contextvars import ContextVar
from typing import Any

import torch

from .hosts.versions import TORCH

READS_CONTEXT_VARIABLES = TORCH >= (2, 14)
"""Whether code that this version of PyTorch compiles can; what another task of the thread set is seen where not."""


class Current:
    """A value that every thread and every asyncio task has its own of: None until it is set there.

    Compiled code can set no context variable, but attributes of a thread; a task can't be interrupted within it. The
    last value that was set is the one, whoever set it. Copies start empty.
    """

    def __init__(self) -> None:
        self._of_task: ContextVar[Any] = ContextVar('fewtokens', default=None)
        self._of_thread = threading.local()

    def get(self) -> Any:
        value = getattr(self._of_thread, 'compiled', None)
        if value is not None:
            return value
        if torch.compiler.is_dynamo_compiling() and not READS_CONTEXT_VARIABLES:
            return getattr(self._of_thread, 'latest', None)
        return self._of_task.get()

    def set(self, value: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            self._of_thread.compiled = value
        else:
            self._of_thread.compiled = None
            self._of_thread.latest = value
            self._of_task.set(value)

    def __reduce__(self) -> tuple:
        return Current, ()
