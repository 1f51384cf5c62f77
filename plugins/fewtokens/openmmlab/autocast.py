"""Mixed precision on any device: MMEngine's AmpOptimWrapper refuses to run on a CPU, its test loop takes float16."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .model import unwrap


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Trains under bfloat16 autocast on any device. bfloat16 has float32's range: no loss scaling.

    Args:
        fused_attention: False takes PyTorch's plain attention. On CPUs, the fused one's backward pass in bfloat16 takes
            longer where tokens are few: 65 tokens of 64 channels, a step twice as long.
        others: see MMEngine's OptimWrapper.
    """

    def __init__(self, *others: Any, fused_attention: bool = True, **options: Any) -> None:
        super().__init__(*others, **options)
        self.fused_attention = fused_attention

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        attention = nullcontext() if self.fused_attention else sdpa_kernel(SDPBackend.MATH)
        with super().optim_context(model), torch.autocast(get_device(), dtype=torch.bfloat16), attention:
            yield


@contextmanager
def mixed_precision_test(runner: Runner) -> Iterator[None]:
    """Runs a runner's test under bfloat16 autocast. Predictions are float32, as metrics and files want them."""
    model = unwrap(runner.model)
    # The loop switches autocast on or off itself. Its dtype is the one around it: float16 on a GPU, if there is none.
    runner.test_loop.fp16 = True
    handle = model.register_forward_hook(lambda module, args, output: _in_float32(output))
    try:
        with torch.autocast(model.data_preprocessor.device.type, torch.bfloat16):
            yield
    finally:
        handle.remove()


def _in_float32(output: Any) -> Any:
    """NumPy has no bfloat16. Data samples are changed in place."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, BaseDataElement):
        for name, value in output.items():
            converted = _in_float32(value)
            if converted is not value:
                setattr(output, name, converted)
        return output
    if isinstance(output, dict):
        return {name: _in_float32(value) for name, value in output.items()}
    return type(output)(map(_in_float32, output)) if type(output) in (list, tuple) else output
