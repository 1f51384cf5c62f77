"""Where an op runs: in PyTorch's form of it, or in a kernel of ours."""

import os
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .compiling import while_compiling

BACKENDS = ('auto', 'torch', 'triton')
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_kernels(backend: str, *tensors: Tensor | None) -> bool:
    """Whether a call of an op runs in kernels.

    'auto' takes them on a CUDA device where triton is. Gradients, `torch.export`, `torch.func` and modes that watch
    operations get PyTorch's form, whoever asked for what. `torch.compile` sees a kernel as one operation.

    Raises:
        ValueError: an unknown backend, or 'triton' where kernels can't run.
    """
    if backend == 'torch':
        return False
    if backend not in BACKENDS:
        raise ValueError(f'backend={backend!r} must be one of {", ".join(map(repr, BACKENDS))}')
    given = [tensor for tensor in tensors if tensor is not None]
    device = given[0].device
    if not (device.type == 'cuda' and _is_capable(device)) and not (backend == 'triton' and _is_interpreted(device)):
        if backend == 'auto':
            return False
        raise ValueError(f"backend='triton' needs a CUDA device of capability 8.0 and triton; tokens are on {device}")
    differentiated = torch.is_grad_enabled()
    for tensor in given:
        if tensor.dtype not in TYPES and tensor.is_floating_point() or differentiated and tensor.requires_grad:
            return False
    return is_compiling() or is_plain_call(given)


def is_compiling() -> bool:
    """Whether torch.compile is at work, to which an operation of ours is one, and not `torch.export`."""
    return torch.compiler.is_dynamo_compiling() and not _is_exporting()


@while_compiling
def _is_exporting() -> bool:
    # Asked while compiling and not by what is compiled, in which some versions of PyTorch take it to be always true.
    return hasattr(torch.compiler, 'is_exporting') and torch.compiler.is_exporting()


def is_plain_call(tensors: list[Tensor]) -> bool:
    """Whether nothing but the values is wanted of a call."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.jit.is_tracing()
        and torch.autograd.forward_ad._current_level < 0
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
    )


@while_compiling
def _is_interpreted(device: torch.device) -> bool:
    """Whether Triton runs its programs on the CPU, slowly: for tests, which ask for it."""
    return device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1'


@while_compiling
def _is_capable(device: torch.device) -> bool:
    return _ask(device)


@lru_cache
def _ask(device: torch.device) -> bool:
    # Apart from what is called while compiling: some versions of PyTorch look into a cache and see no mark on it.
    if torch.version.hip is not None or find_spec('triton') is None:
        return False
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
