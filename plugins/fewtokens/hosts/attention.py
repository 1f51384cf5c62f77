"""What attention over reduced tokens must know, and the ways to tell it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..ops.attention import attend
from ..ops.backend import use_kernels
from .layout import Layout, Windows
from .members import Members
from .spread import Spread
from .versions import TORCH


@dataclass(frozen=True)
class AttentionContext:
    """What attention over reduced tokens needs to know beyond the tokens."""

    layout: Layout
    """Of the reduced tokens."""
    bias: Tensor | None = None
    """[B, tokens], added to the logits of each token as a key: 0 for prefix tokens, minus infinity for a token without
    members; None if members aren't counted."""
    members: Members | None = None
    """Which tokens the reduced ones stand for; None where no block's positions depend on it."""
    spread: Spread | None = None
    """How far the members of each token lie apart; None where that is left out of account."""
    masks: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """What `key_mask` has made."""

    @property
    def windows(self) -> Windows:
        """The layout, of hosts that cut windows."""
        return cast(Windows, self.layout)

    @property
    def groups(self) -> Members:
        """The members, of blocks whose positions depend on them."""
        return cast(Members, self.members)

    def key_bias(self, like: Tensor) -> Tensor | None:
        """The bias in the type of `like`."""
        return None if self.bias is None else self.bias.to(like.dtype)

    def key_mask(self, like: Tensor, heads: int | None = None) -> Tensor | None:
        """The bias in the type of `like` as a mask: see the function of that name. Made once for all blocks."""
        if self.bias is None:
            return None
        if torch.compiler.is_dynamo_compiling() or self.bias.requires_grad:
            return key_mask(self.bias.to(like.dtype), heads)
        if (like.dtype, heads) not in self.masks:
            self.masks[like.dtype, heads] = key_mask(self.bias.to(like.dtype), heads)
        return self.masks[like.dtype, heads]


Context = Callable[[], AttentionContext | None]


@dataclass
class KeyBias:
    """Stands in for an `nn.MultiheadAttention`'s call: adds the context's bias, in a way that fused kernels take."""

    context: Context

    def __call__(self, module: nn.Module, forward: Callable, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        context = self.context()
        bias = None if context is None else context.key_bias(query)
        if bias is not None:
            # A mask over keys alone, [B, keys], stays small: it is broadcast over heads and queries.
            kwargs['key_padding_mask'] = of_keys_alone(bias)
        return forward(query, *args, **kwargs)


def key_mask(bias: Tensor, heads: int | None = None) -> Tensor:
    """A bias of keys [B, N] as a mask for blocks that take one; no tensor of queries by keys.

    Args:
        heads: of `nn.MultiheadAttention`, which wants [B * heads, N, N]; None for [B, 1, 1, N].
    """
    if heads is None:
        return of_keys_alone(bias[:, None, None])
    return of_keys_alone(bias.repeat_interleave(heads, dim=0)[:, None].expand(-1, bias.shape[1], -1))


def of_keys_alone(mask: Tensor) -> Tensor:
    """Says of a mask that it is the same for every head and query; a plain tensor where no kernel could use that."""
    known = use_kernels('auto', mask) and (COMPILES_MARKS or not torch.compiler.is_compiling())
    return mask.as_subclass(KeyMask) if known else mask


class KeyMask(Tensor):
    """A mask for attention that is the same for every head and query, [..., keys] of whatever shape a host wants.

    Where PyTorch's attention is given one, `fewtokens.ops.attend` runs in its place, which is sooner done. To all else
    it is a plain tensor. So blocks of any library are served that take a mask, and none of them is touched.
    """

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.scaled_dot_product_attention:
                return _attend(*args, **kwargs)
            out = func(*args, **kwargs)
            kept = func in RESHAPING or (func is Tensor.__getitem__ and out.shape == args[0].shape)
            return out.as_subclass(cls) if kept else out


COMPILES_MARKS = TORCH >= (2, 11)
"""Whether this version of PyTorch compiles what marks a mask, as 2.11 and 2.14 were seen to; not tried before."""
RESHAPING = (Tensor.view, Tensor.expand, Tensor.reshape, Tensor.to)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's attention with a `KeyMask`."""
    fits = query.ndim == attn_mask.ndim == 4 and len(attn_mask) == len(query)
    if fits and not (dropout_p or is_causal or enable_gqa):
        return attend(query, key, value, attn_mask.select(1, 0).select(1, 0), scale)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def biased_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """PyTorch's fused attention with a bias on the logits, or its plain one where the fused can't be differentiated."""
    transformed = not torch.compiler.is_dynamo_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
    # Under torch.func PyTorch doesn't see that the bias has a gradient, and takes a kernel that gives it none.
    with sdpa_kernel(SDPBackend.MATH) if transformed else nullcontext():
        bias = None if bias is None else bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)


def without_weights(module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """In the call's place: asking `nn.MultiheadAttention` for no weights lets PyTorch use its fused attention."""
    return forward(*args, **{**kwargs, 'need_weights': False})
