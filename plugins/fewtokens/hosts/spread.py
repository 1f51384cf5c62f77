"""What a token that stands for many must do differently in a block: norm and activation aren't linear.

A group's token is its members' mean, and a mean of norms, or of activations, isn't that of a mean. How far the members
lie apart is known from the merge, and stays so: all of them take the same change.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sublayers:
    """The parts of a pre-norm block that aren't linear."""

    norm: nn.Module
    """Before attention."""
    mlp_norm: nn.Module | None = None
    linear: nn.Module | None = None
    """The MLP's first layer; None, with what stands before and after it, where a gate follows."""
    activation: nn.Module | None = None


def sublayers(
    norm: nn.Module, mlp_norm: nn.Module, linear: nn.Module | None, activation: nn.Module | None
) -> Sublayers | None:
    """Sublayers as far as they are of known kinds."""
    if not isinstance(norm, nn.LayerNorm):
        return None
    if not (isinstance(mlp_norm, nn.LayerNorm) and isinstance(linear, nn.Linear) and activation is not None):
        return Sublayers(norm)
    if linear.weight.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        # Quantised: its numbers aren't the weights.
        return Sublayers(norm)
    return Sublayers(norm, mlp_norm, linear, activation)


@dataclass(frozen=True)
class Spread:
    """How far the members of each token of a block lie apart."""

    variances: Tensor
    """Of members around their mean, averaged over channels, [B, tokens] float32; 0 for prefix tokens."""
    shares: list[Tensor] = field(default_factory=list, compare=False, repr=False)
    """What part of its members' whole variance over channels that is, in the block that runs: as its value, with one
    channel."""


@dataclass
class SpreadNorm:
    """Stands in for the call of the norm before attention: gives what is between its own and the members' mean.

    Members' norms divide by more than a mean's does: its variance over channels and their spread around it.
    """

    context: Callable[[], Any]
    with_tokens: Callable

    def __call__(self, module: nn.LayerNorm, forward: Callable, value: Tensor) -> Tensor:
        normed, context = forward(value), self.context()
        if context is None or context.spread is None:
            return normed
        _refuse_offloaded(module, value)
        with torch.no_grad():
            apart = self.with_tokens(value, context.spread.variances[..., None], context.layout)
            # A token that is the same in all channels, as a padded one, has no variance to share.
            variance = value.detach().float().var(-1, unbiased=False, keepdim=True)
            share = apart / (variance + apart).clamp_min(torch.finfo(torch.float32).tiny)
            context.spread.shares[:] = [share]
            # Half of the spread: with all of it keys come out too weak.
            factor = ((1 - share) / (1 - share / 2)).sqrt().to(normed.dtype)
        if module.bias is None:
            return normed * factor
        return torch.lerp(module.bias.to(normed.dtype).expand_as(normed), normed, factor)


@dataclass
class SpreadActivation:
    """Stands in for an activation's call: gives the mean over two points a standard deviation to each side.

    That is the members' mean up to the fourth moment. Spread is taken to be the same in every direction, so that a
    hidden unit's is known from the length of its weights.
    """

    context: Callable[[], Any]
    linear: nn.Linear
    norm: nn.LayerNorm

    def __call__(self, module: nn.Module, forward: Callable, hidden: Tensor) -> Tensor:
        context = self.context()
        if context is None or context.spread is None or not context.spread.shares:
            return forward(hidden)
        _refuse_offloaded(self.linear, hidden)
        with torch.no_grad():
            gain = torch.linalg.vector_norm(self.linear.weight.detach().float(), dim=1)
            if self.norm.weight is not None:
                gain = gain * self.norm.weight.detach().float().square().mean().sqrt()
            deviation = (context.spread.shares[0].sqrt() * gain).to(hidden.dtype)
        return (forward(hidden + deviation) + forward(hidden - deviation)) / 2


def _refuse_offloaded(module: nn.Module, value: Tensor) -> None:
    if module.weight is not None and module.weight.is_meta and not value.is_meta:
        raise ValueError(
            "a block's weights are offloaded, and there only while their own layer runs: spread=False does without "
            'reading them'
        )
