"""What a token that stands for many must do differently in a block: norm and activation aren't linear.

A group's token is its members' mean, and a mean of norms, or of activations, isn't that of a mean. How far the members
lie apart is known from the merge, and stays so: all of them take the same change.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..ops.spread import LayerNorm, activate_members, norm_members
from .replaced import is_own
from .weights import as_numbers


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
    return Sublayers(norm, mlp_norm, linear, activation)


@dataclass(frozen=True)
class Spread:
    """How far the members of each token of a block lie apart."""

    variances: Tensor
    """Of members around their mean, averaged over channels, [B, tokens] float32; 0 for prefix tokens."""
    shares: list[Tensor] = field(default_factory=list, compare=False, repr=False)
    """What part of its members' whole variance over channels that is, in the block that runs: as its value, with one
    channel."""


PLAIN_NORMS = {
    'torch.nn.modules.normalization.LayerNorm',
    'timm.layers.norm.LayerNorm',
    'open_clip.transformer.LayerNorm',
    'open_clip.transformer.LayerNormFp32',
}
"""Classes that compute nothing but a layer norm."""


@dataclass
class SpreadNorm:
    """Stands in for the call of the norm before attention: gives what is between its own and the members' mean."""

    context: Callable[[], Any]
    with_tokens: Callable

    def __call__(self, module: nn.LayerNorm, forward: Callable, value: Tensor) -> Tensor:
        context = self.context()
        if context is None or context.spread is None:
            return forward(value)
        _refuse_offloaded(module, value)
        apart = self.with_tokens(value, context.spread.variances[..., None], context.layout)
        known = _layer_norm(module, value) if is_own(forward) else None
        normed, share = norm_members(value, apart, forward, module.bias, known)
        context.spread.shares[:] = [share]
        return normed


def _layer_norm(module: nn.LayerNorm, value: Tensor) -> LayerNorm | None:
    plain = _name(module) in PLAIN_NORMS and module.normalized_shape == (value.shape[-1],)
    return LayerNorm(module.weight, module.bias, module.eps) if plain else None


@dataclass
class SpreadActivation:
    """Stands in for an activation's call: gives about the mean of what its members' would be."""

    context: Callable[[], Any]
    linear: nn.Linear
    norm: nn.LayerNorm

    def __call__(self, module: nn.Module, forward: Callable, hidden: Tensor) -> Tensor:
        context = self.context()
        if context is None or context.spread is None or not context.spread.shares:
            return forward(hidden)
        _refuse_offloaded(self.linear, hidden)
        # At every call: a model may be quantised once this is attached.
        weight = as_numbers(self.linear.weight)
        if weight is None:
            return forward(hidden)
        # Some blocks take the MLP's tokens in a row that the norm had on a grid.
        share = context.spread.shares[0].reshape(*hidden.shape[:-1], 1)
        known = _kind(module) if is_own(forward) else None
        return activate_members(hidden, share, forward, weight, self.norm.weight, known)


def _refuse_offloaded(module: nn.Module, value: Tensor) -> None:
    if module.weight is not None and module.weight.is_meta and not value.is_meta:
        raise ValueError(
            "a block's weights are offloaded, and there only while their own layer runs: spread=False does without "
            'reading them'
        )


ACTIVATIONS = {
    'timm.layers.activations.GELU': 'gelu',
    'timm.layers.activations.GELUTanh': 'gelu tanh',
    'timm.layers.activations.QuickGELU': 'quick gelu',
    'open_clip.transformer.QuickGELU': 'quick gelu',
    'transformers.activations.GELUActivation': 'gelu',
    'transformers.activations.QuickGELUActivation': 'quick gelu',
}
"""Classes, by their names in `ops.spread.ACTIVATIONS`."""


def _kind(module: nn.Module) -> str | None:
    """A name in `ops.spread.ACTIVATIONS`."""
    if type(module) is nn.GELU:
        return 'gelu' if module.approximate == 'none' else 'gelu tanh'
    return ACTIVATIONS.get(_name(module))


def _name(module: nn.Module) -> str:
    return f'{type(module).__module__}.{type(module).__qualname__}'
