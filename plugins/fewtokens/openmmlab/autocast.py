"""Mixed precision without a GPU: MMEngine's AmpOptimWrapper refuses to run on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch.nn.attention import SDPBackend, sdpa_kernel


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
