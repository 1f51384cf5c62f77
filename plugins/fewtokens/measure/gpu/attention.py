"""Attention whose keys have a bias, in a kernel of ours and in every way that PyTorch has."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...ops import attend
from .timing import Call, Results, captured, time_calls


@dataclass(frozen=True)
class Heads:
    batch: int
    tokens: int
    heads: int = 16
    width: int = 64
    dtype: str = 'bfloat16'


SHAPES = [
    Heads(1, 401), Heads(1, 1025), Heads(1, 1601), Heads(8, 401), Heads(8, 1025), Heads(1, 1025, 16, 80),
    Heads(8, 1025, 16, 80), Heads(1, 401, 12, 64), Heads(1, 4097),
]  # fmt: skip


def _with_mask(backend: SDPBackend | None, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    mask = bias.to(q.dtype)[:, None, None]
    if backend is None:
        return F.scaled_dot_product_attention(q, k, v, mask)
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, mask)


def channel_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention with a bias of keys, carried by more channels: every kernel takes it, flash attention too.

    A bias is more of a logit: where queries have a constant and keys the bias, their product has it. Two channels hold
    it, one what the other's rounding left; heads are widened to a multiple of 8, which kernels want.

    Args:
        query, key, value: [B, heads, N, D], of equal width.
        bias: [B, N] float32; a token of minus infinity is not attended to.
        dropout: of the weights.

    Returns:
        [B, heads, N, D].
    """
    width = query.shape[-1]
    more = -(width + 2) % 8 + 2
    # A power of two, which changes no bias; that far down a weight is 0 in every type, and its rest a number.
    constant = 2.0 ** round(math.log2(width) / 2)
    wide = (bias.clamp_min(-1e4) * (width**0.5 / constant))[:, None, :, None]
    high = wide.to(key.dtype)
    low = (wide - high.float()).to(key.dtype)
    ones = query.new_full((1,), constant).expand(*query.shape[:-1], 2)
    nothing = query.new_zeros(1)
    query = torch.cat([query, ones, nothing.expand(*query.shape[:-1], more - 2)], dim=-1)
    sides = [side.expand(*key.shape[:-1], 1) for side in (high, low)]
    key = torch.cat([key, *sides, nothing.expand(*key.shape[:-1], more - 2)], dim=-1)
    out = F.scaled_dot_product_attention(query, key, F.pad(value, (0, more)), None, dropout, scale=width**-0.5)
    return out[..., :width]


def _flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + bias[b, j])


@lru_cache
def _compiled_flex() -> Callable:
    return torch.compile(_flex)


def forms_of(shape: Heads) -> dict[str, Call]:
    """By name; the first has no bias."""
    dtype = getattr(torch, shape.dtype)
    # As timm has them: views of one projection.
    qkv = torch.randn(shape.batch, shape.tokens, 3, shape.heads, shape.width, device='cuda', dtype=dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    bias = torch.full((shape.batch, shape.tokens), math.log(4), device='cuda')
    bias[:, 0] = 0
    ways: dict[str, Callable] = {
        'mask': lambda: _with_mask(None, q, k, v, bias),
        'kernel': lambda: attend(q, k, v, bias),
        'mask, memory-efficient': lambda: _with_mask(SDPBackend.EFFICIENT_ATTENTION, q, k, v, bias),
        'mask, cuDNN': lambda: _with_mask(SDPBackend.CUDNN_ATTENTION, q, k, v, bias),
        'FlexAttention': lambda: _compiled_flex()(q, k, v, bias),
        'extra key channels': lambda: channel_attention(q, k, v, bias),
    }
    return {'no bias': lambda: F.scaled_dot_product_attention(q, k, v), **ways}


@torch.inference_mode()
def measure_attention(shapes: list[Heads], results: Results) -> None:
    for shape in shapes:
        about = dict(part='attention', **vars(shape))
        with results.soft(**about):
            ready: dict[str, Any] = {}
            expected: Any = None
            for name, call in forms_of(shape).items():
                if results.clock.is_over:
                    results.add(**about, name=name, failure='no time left')
                    continue
                with results.soft(**about, name=name):
                    out = call()
                    if name == 'mask':
                        expected = out
                    elif name != 'no bias':
                        error = ((out - expected).float().norm() / expected.float().norm()).item()
                        if not error < 0.02:
                            raise RuntimeError(f'differs from the mask by {error:.3g}')
                    ready[name] = captured(call)
            for name, timing in time_calls(ready, 'no bias', milliseconds=2).items():
                results.add(**about, name=name, **timing)
