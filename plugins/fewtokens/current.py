"""Values of a thread and task."""

import threading
from contextvars import ContextVar
from typing import Any

import torch


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
        return self._of_task.get() if value is None else value

    def set(self, value: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            self._of_thread.compiled = value
        else:
            self._of_thread.compiled = None
            self._of_task.set(value)

    def __reduce__(self) -> tuple:
        return Current, ()
