"""Distances are computed in float32 (float64 stays), whatever the tokens' type and outside autocast."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from .compiling import while_compiling


def in_float32(op: Callable) -> Callable:
    """Runs an op with its tensors in float32, and casts its first result back to its first tensor's type."""

    @wraps(op)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        first = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with without_autocast(first.device.type):
            out = op(*map(widen, args), **{name: widen(value) for name, value in kwargs.items()})
        return (_narrow(out[0], first.dtype), *out[1:]) if isinstance(out, tuple) else _narrow(out, first.dtype)

    return wrapped


def without_autocast(device_type: str) -> AbstractContextManager:
    """Autocast switched off where the device has it: the meta device, on which costs are counted, has none."""
    if _has_autocast(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


@while_compiling
def _has_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def widen(value: Any) -> Any:
    """Half-precision tensors in float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value


def _narrow(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
