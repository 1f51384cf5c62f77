"""Norm and activation of tokens that stand for many, each in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import Plan, launch

TINY = tl.constexpr(1.1754943508222875e-38)


@triton.jit
def norm_kernel(
    value, apart, weight, bias, out, shares, rows, C, eps, svo, svi, svc, sao, sai,
    SCALED: tl.constexpr, SHIFTED: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A program is a token: the one at `inner` of `rows` in the `outer` row of tokens."""
    row = tl.program_id(0).to(tl.int64)
    outer, inner = row // rows, row % rows
    channels = tl.arange(0, BLOCK_C)
    inside = channels < C
    token = tl.load(value + outer * svo + inner * svi + channels * svc, mask=inside, other=0).to(tl.float32)
    centered = tl.where(inside, token - tl.sum(token) / C, 0.0)
    variance = tl.sum(centered * centered) / C
    spread = tl.load(apart + outer * sao + inner * sai).to(tl.float32)
    whole = variance + spread
    share = spread / tl.where(whole < TINY, TINY, whole)
    halfway = variance + spread / 2
    out_row = centered * (1 / tl.sqrt(variance + eps) * tl.sqrt(variance / tl.where(halfway < TINY, TINY, halfway)))
    if SCALED:
        out_row *= tl.load(weight + channels, mask=inside, other=0).to(tl.float32)
    if SHIFTED:
        out_row += tl.load(bias + channels, mask=inside, other=0).to(tl.float32)
    tl.store(out + row * C + channels, out_row.to(out.dtype.element_ty), mask=inside)
    tl.store(shares + row, share)


@triton.jit
def activate(x, KIND: tl.constexpr, EXACT: tl.constexpr):
    if KIND == 'gelu' and EXACT:
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif KIND == 'gelu':
        # The error function within 1.5e-7, Abramowitz and Stegun 7.1.26: computing it was most of the kernel's time.
        y = tl.abs(x) * 0.7071067811865476
        t = 1 / (1 + 0.3275911 * y)
        rest = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
        return tl.maximum(x, 0.0) - 0.5 * tl.abs(x) * t * rest * tl.exp(-y * y)
    elif KIND == 'gelu tanh':
        # (1 + tanh y) / 2 is the logistic function of 2 y.
        return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        return x * tl.sigmoid(1.702 * x)


@triton.jit(do_not_specialize=['rows', 'part'])
def activation_kernel(
    hidden, shares, weight, scale, out, rows, part, D, C, swd, swc,
    KIND: tl.constexpr, EXACT: tl.constexpr, SCALED: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """A program is some hidden units of `part` tokens; it measures the units' weights first."""
    units = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    known = units < D
    squares, of_scale = tl.zeros([BLOCK_D], dtype=tl.float32), 0.0
    for start in range(0, C, BLOCK_C):
        channels = start + tl.arange(0, BLOCK_C)
        inside = channels < C
        places = units.to(tl.int64)[:, None] * swd + channels[None, :] * swc
        tile = tl.load(weight + places, mask=known[:, None] & inside[None, :], other=0).to(tl.float32)
        squares += tl.sum(tile * tile, axis=1)
        if SCALED:
            factors = tl.load(scale + channels, mask=inside, other=0).to(tl.float32)
            of_scale += tl.sum(factors * factors)
    if SCALED:
        squares *= of_scale / C
    gain = tl.sqrt(squares)[None, :]
    first = tl.program_id(1) * part
    for start in range(first, tl.minimum(first + part, rows), BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        wanted = (row < rows)[:, None] & known[None, :]
        deviation = tl.sqrt(tl.load(shares + row, mask=row < rows, other=0))[:, None] * gain
        at = row.to(tl.int64)[:, None] * D + units[None, :]
        x = tl.load(hidden + at, mask=wanted, other=0).to(tl.float32)
        y = (activate(x + deviation, KIND, EXACT) + activate(x - deviation, KIND, EXACT)) * 0.5
        tl.store(out + at, y.to(out.dtype.element_ty), mask=wanted)


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    """Of the first two of three dimensions, those that are not there being 1 long."""
    outer, inner = (0, 0, *tensor.stride()[:-1])[-2:]
    return {f's{name}o': outer, f's{name}i': inner}


def launch_norm(
    value: Tensor, apart: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """As `fewtokens.ops.spread.norm_members`, of a plain layer norm."""
    out, shares = value.new_empty(value.shape), apart.new_empty(apart.shape)
    launch(norm_kernel, _plan_norm, (value, apart, weight, bias, out, shares), eps)
    return out, shares


def _plan_norm(
    value: Tensor, apart: Tensor, weight: Tensor | None, bias: Tensor | None, out: Tensor, shares: Tensor, eps: float
) -> Plan:
    channels = value.shape[-1]
    block_c = triton.next_power_of_2(channels)
    return (shares.numel(),), dict(
        rows=value.shape[-2] if value.ndim > 1 else 1,
        **dict(C=channels, eps=eps, svc=value.stride(-1)),
        **_strides('v', value),
        **_strides('a', apart),
        **dict(SCALED=weight is not None, SHIFTED=bias is not None, BLOCK_C=block_c),
        num_warps=min(max(block_c // 512, 1), 8),
    )


BLOCK_D, BLOCK_R = 16, 128
PROGRAMS = 1024
"""As many keep a device busy. Each measures its units' weights anew: no more than that if there are many tokens."""


def launch_activation(hidden: Tensor, shares: Tensor, weight: Tensor, scale: Tensor | None, kind: str) -> Tensor:
    """As `fewtokens.ops.spread.activate_members`."""
    hidden, shares = hidden.contiguous(), shares.contiguous()
    out = hidden.new_empty(hidden.shape)
    launch(activation_kernel, _plan_activation, (hidden, shares, weight, scale, out), kind)
    return out


def _plan_activation(
    hidden: Tensor, shares: Tensor, weight: Tensor, scale: Tensor | None, out: Tensor, kind: str
) -> Plan:
    units, channels = weight.shape
    rows = shares.numel()
    columns = triton.cdiv(units, BLOCK_D)
    # Two blocks of tokens at least.
    part = max(triton.cdiv(triton.cdiv(rows, BLOCK_R), max(PROGRAMS // columns, 1)), 2) * BLOCK_R
    return (columns, triton.cdiv(rows, part)), dict(
        **dict(rows=rows, part=part, D=units, C=channels),
        **dict(zip(('swd', 'swc'), weight.stride())),
        **dict(KIND=kind, EXACT=hidden.dtype == torch.float32, SCALED=scale is not None),
        **dict(BLOCK_D=BLOCK_D, BLOCK_C=min(triton.next_power_of_2(channels), 256), BLOCK_R=BLOCK_R),
        num_warps=4,
    )
