"""Norm and activation of tokens that stand for many: what they would give on average over members that lie apart."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .backend import is_plain_call, use_kernels

TINY = torch.finfo(torch.float32).tiny
ACTIVATIONS = ('gelu', 'gelu tanh', 'quick gelu')
"""Those that there is a kernel for."""
PART = 2**18
"""Numbers that are worked on at a time on a CPU: they fit its second-level cache."""


class LayerNorm(NamedTuple):
    """A layer norm over channels: weight and bias [C], or None."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float


def norm_members(
    value: Tensor,
    apart: Tensor,
    norm: Callable[[Tensor], Tensor],
    bias: Tensor | None,
    known: LayerNorm | None = None,
    backend: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """What is between a token's layer norm and its members'.

    Members' norms divide by more than a mean's does: its variance over channels and their spread around it.

    Args:
        value: tokens [..., C], up to three dimensions.
        apart: variance of each one's members around it [..., 1] float32.
        norm: called with `value`, gives the norm of it.
        bias: which that norm adds, [C] or None.
        known: what `norm` computes, where a kernel may do it in its place.
        backend: 'torch', 'triton' for kernels of a CUDA device, or 'auto': kernels where they can run.

    Returns:
        the norm [..., C], and what part `apart` is of the members' whole variance over channels [..., 1] float32.
    """
    if known is not None and _in_kernels(backend, value, apart, known.weight, known.bias):
        if value.shape[-1] <= 8192 and not torch.is_autocast_enabled(value.device.type):
            from .triton import spread as kernels

            return kernels.launch_norm(value, apart, known.weight, known.bias, known.eps)
    normed = norm(value)
    with torch.no_grad():
        # A token that is the same in all channels, as a padded one, has no variance to share.
        variance = _variance(value.detach().float())
        share = apart / (variance + apart).clamp_min(TINY)
        # Half of the spread: with all of it keys come out too weak.
        factor = (variance / (variance + apart / 2).clamp_min(TINY)).sqrt().to(normed.dtype)
    if bias is None:
        return normed * factor, share
    return torch.lerp(bias.to(normed.dtype).expand_as(normed), normed, factor), share


def _variance(value: Tensor) -> Tensor:
    """Over channels, [..., 1]: by the layer norm, which takes a fraction of the time of `Tensor.var` on a CPU."""
    # Without a weight, PyTorch takes twice as long.
    deviation = torch.native_layer_norm(value, value.shape[-1:], value.new_ones(value.shape[-1]), None, TINY)[2]
    return deviation.pow(-2)


def activate_members(
    hidden: Tensor,
    share: Tensor,
    activation: Callable[[Tensor], Tensor],
    weight: Tensor,
    scale: Tensor | None,
    known: str | None = None,
    backend: str = 'auto',
) -> Tensor:
    """The mean of an activation over two points, a standard deviation of the members to each side.

    That is the members' mean up to the fourth moment. Spread is taken to be the same in every direction, so that a
    hidden unit's is known from the length of its weights.

    Args:
        hidden: what the activation is given [..., D], up to three dimensions.
        share: from `norm_members`, [..., 1].
        activation: called with tensors as `hidden`.
        weight: of the linear layer that made `hidden`, [D, C].
        scale: of the norm before that layer [C], or None.
        known: which of `ACTIVATIONS` it is, where a kernel may do it in its place.
        backend: as for `norm_members`.
    """
    if known is not None and _in_kernels(backend, hidden, share, weight, scale):
        from .triton import spread as kernels

        return kernels.launch_activation(hidden, share, weight, scale, known)
    with torch.no_grad():
        gain = torch.linalg.vector_norm(weight.detach().float(), dim=1)
        if scale is not None:
            gain = gain * scale.detach().float().square().mean().sqrt()
        gain, deviation = gain.to(hidden.dtype), share.sqrt().to(hidden.dtype)
    if hidden.device.type == 'cpu' and not torch.is_grad_enabled() and is_plain_call([hidden, share]):
        return _activate_in_parts(hidden, deviation, gain, activation)
    deviation = deviation * gain
    return (activation(hidden + deviation) + activation(hidden - deviation)) / 2


def _activate_in_parts(
    hidden: Tensor, deviation: Tensor, gain: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """The same a few rows at a time, which stay in a CPU's cache from step to step."""
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    step = max(1, PART // hidden.shape[-1])
    parts = (each.flatten(0, -2).split(step) for each in (hidden, deviation, out))
    for row, apart, into in zip(*parts):
        above = activation(torch.addcmul(row, apart, gain))
        # Where their mean will stand: that of an activation in place is the same tensor.
        below = activation(torch.addcmul(row, apart, gain, value=-1, out=into))
        torch.lerp(above, below, 0.5, out=into)
    return out


def _in_kernels(backend: str, value: Tensor, *others: Tensor | None) -> bool:
    # The compiler fuses PyTorch's form with what stands around it.
    compiling = torch.compiler.is_compiling()
    return value.ndim <= 3 and value.numel() > 0 and not compiling and use_kernels(backend, value, *others)
