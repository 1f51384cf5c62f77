"""Multiply-accumulate operations of a forward pass."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def forward(model: nn.Module, inputs: Tensor) -> Any:
    """The network's raw outputs: OpenMMLab's models by their mode for it, others by a call."""
    if any(cls.__module__ == 'mmengine.model.base_model.base_model' for cls in type(model).__mro__):
        return model(inputs, mode='tensor')
    return model(inputs)


@torch.no_grad()
def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Counts multiply-accumulate operations of one forward pass over all of `inputs`.

    Matrix products and convolutions count, attention's and the clustering's own among them; gathers, norms and
    activations don't. Attention counts the same whether the host fuses it or not. Works on the meta device, where
    nothing is computed.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Fused CPU attention and the native multi-head kernel are opaque to the counter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            forward(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return counter.get_total_flops() // 2
