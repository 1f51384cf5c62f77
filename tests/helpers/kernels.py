"""Compiles Triton kernels as they would be launched, without a device."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = {
    torch.float32: 'fp32',
    torch.float16: 'fp16',
    torch.bfloat16: 'bf16',
    torch.int64: 'i64',
    torch.int32: 'i32',
    torch.float64: 'fp64',
}
OPTIONS = ('num_warps', 'num_stages', 'launch_cooperative_grid')


class Recorded:
    """Stands in for a kernel, and remembers what it is launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launches: list[dict[str, Any]] = []

    def __getitem__(self, places: tuple) -> Callable:
        def launch(*args: Any, **kwargs: Any) -> None:
            self.launches.append({**dict(zip(self.kernel.arg_names, args)), **kwargs})

        return launch


@contextmanager
def recording(*places: tuple[Any, str]):
    """Kernels of modules, by name, are recorded and not run."""
    with ExitStack() as stack:
        recorders = [Recorded(getattr(module, name)) for module, name in places]
        for (module, name), recorder in zip(places, recorders):
            stack.enter_context(mock.patch.object(module, name, recorder))
        yield recorders


def compile_launch(kernel: Any, launch: dict[str, Any], capability: int) -> Any:
    """The compiled kernel of a recorded launch."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = launch[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name] = 'constexpr'
            constants[(index,)] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = f'*{NAMES[value.dtype]}'
            attributes[(index,)] = [['tt.divisibility', 16]]
        elif parameter.do_not_specialize:
            signature[parameter.name] = 'fp32' if isinstance(value, float) else 'i32'
        elif value == 1 and isinstance(value, int):
            signature[parameter.name] = 'constexpr'
            constants[(index,)] = 1
        else:
            signature[parameter.name] = 'fp32' if isinstance(value, float) else 'i32'
            if value % 16 == 0:
                attributes[(index,)] = [['tt.divisibility', 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    options = {name: launch[name] for name in OPTIONS if name in launch}
    return triton.compile(source, target=GPUTarget('cuda', capability, 32), options=options)
