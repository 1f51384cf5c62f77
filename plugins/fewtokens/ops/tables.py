"""Index tables: what a grid's tokens and centers have to do with each other, made once for each grid and device."""

import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from .compiling import while_compiling

Tables = TypeVar('Tables', Tensor, tuple[Tensor, ...])


def kept(make: Callable[..., Tables]) -> Callable[..., Tables]:
    """Keeps the table or tables that a function makes of whole numbers, booleans and tuples of them.

    What is kept is made undisturbed, whoever asks first: under `torch.export`, a fake-tensor mode, `torch.func` or
    `inference_mode` the tensors would be those of a trace, and useless to all who come later. A trace gets them as its
    constants.

    Args:
        make: makes tables on the CPU.

    Returns:
        the function with an option more, `device`.
    """

    @lru_cache(maxsize=64)
    def keep(args: tuple, device: torch.device) -> Tables:
        # Modes, levels of torch.func, inference and default devices belong to a thread: a new one has none of them.
        with ThreadPoolExecutor(1) as undisturbed:
            return undisturbed.submit(lambda: _each(make(*args), lambda table: _static(table.to(device)))).result()

    @while_compiling
    def constant(args: tuple, device: torch.device) -> Tables:
        return keep(args, device)

    @wraps(make)
    def table(*args: Any, device: torch.device) -> Tables:
        args = _plain(args)
        if torch.compiler.is_dynamo_compiling() or not torch._C._len_torch_dispatch_stack():
            return constant(args, device)
        # A mode wants tensors of its own kind, perhaps on a device that isn't there.
        return _each(constant(args, torch.device('cpu')), lambda t: torch.ops.aten.lift_fresh(t).to(device))

    return table


def _each(tables: Tables, change: Callable[[Tensor], Tensor]) -> Tables:
    return change(tables) if isinstance(tables, Tensor) else tuple(map(change, tables))


def _static(table: Tensor) -> Tensor:
    """Tells the compiler that a table's shape is never another, as torch._dynamo.mark_static does."""
    table._dynamo_static_indices = set(range(table.ndim))
    return table


def _plain(value: Any) -> Any:
    """Whole numbers without the symbols that a trace with dynamic shapes gives them."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value if isinstance(value, bool) else operator.index(value)
