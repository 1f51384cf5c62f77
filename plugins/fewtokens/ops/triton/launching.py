"""Launches kernels on the device of their tensors, at little cost to Python."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import triton
from torch import Tensor

Plan = tuple[tuple[int, ...], dict[str, Any]]
"""How many programs run along each axis, and what a kernel and its launch are told by name."""
KEEPS = tuple(map(int, triton.__version__.split('.')[:2])) >= (3, 6)
"""Whether a compiled kernel of this version takes all arguments, constants among them; not tried before."""
MOST = 4096
"""Launches that are remembered: sizes of images vary without end."""
_known: dict[tuple, tuple[Callable, tuple]] = {}


def launch(kernel: Any, plan: Callable[..., Plan], tensors: tuple[Tensor | None, ...], *settings: Any) -> None:
    """Runs a kernel whose first arguments are tensors.

    In every launch Triton works out anew which of its compiled kernels fits, and we how many programs there are: that
    takes several times as long as a launch of PyTorch's. So it is done once for tensors of the same sizes and kinds.

    Args:
        kernel: made by `triton.jit`.
        plan: given the tensors and settings, says how many programs run along each axis, and by name what other
            arguments and options the launch has.
        tensors: of one device.
        settings: whatever else `plan` needs.
    """
    first = cast(Tensor, tensors[0])
    kinds = [
        None if each is None else (each.dtype, each.shape, each.stride(), each.data_ptr() % 16) for each in tensors
    ]
    key = (id(kernel), first.get_device(), *settings, *kinds)
    known = _known.get(key)
    with on_device_of(first):
        if known is not None:
            run, values = known
            run(*tensors, *values)
            return
        programs, named = plan(*tensors, *settings)
        compiled = kernel[programs](*tensors, **named)
    if compiled is None or not KEEPS:
        return
    if len(_known) >= MOST:
        _known.clear()
    values = tuple(named[name] for name in kernel.arg_names[len(tensors) :])
    _known[key] = compiled[(*programs, 1, 1)[:3]], values


def on_device_of(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device, whose it may not be."""
    return nullcontext() if not x.is_cuda or x.get_device() == torch.cuda.current_device() else torch.cuda.device_of(x)
