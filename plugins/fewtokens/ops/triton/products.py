"""Matrix products of float32 accuracy where a side is as the tokens were given: half precision stays exact."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get('TRITON_INTERPRET') == '1')


@triton.jit
def add_product(given, wide, acc):
    """acc + given @ wide, of [M, K] in the tokens' type and [K, N] float32."""
    if given.dtype == tl.float32:
        acc = tl.dot(given, wide, acc, input_precision='tf32x3')
    else:
        high, low, rest = _split(wide, given.dtype)
        if given.dtype == tl.bfloat16:
            acc = _dot(given, rest, acc)
        acc = _dot(given, low, acc)
        acc = _dot(given, high, acc)
    return acc


@triton.jit
def add_product_left(wide, given, acc):
    """acc + wide @ given, of [M, K] float32 and [K, N] in the tokens' type."""
    if given.dtype == tl.float32:
        acc = tl.dot(wide, given, acc, input_precision='tf32x3')
    else:
        high, low, rest = _split(wide, given.dtype)
        if given.dtype == tl.bfloat16:
            acc = _dot(rest, given, acc)
        acc = _dot(low, given, acc)
        acc = _dot(high, given, acc)
    return acc


@triton.jit
def add_narrow_product(one, other, acc):
    """acc + one @ other, both in the tokens' type."""
    if one.dtype == tl.float32:
        acc = tl.dot(one, other, acc, input_precision='tf32x3')
    else:
        acc = _dot(one, other, acc)
    return acc


@triton.jit
def _split(wide, dtype: tl.constexpr):
    """A float32 number as a sum of narrow ones, whose products with narrow ones are exact; float16 needs two."""
    high = wide.to(dtype)
    left = wide - high.to(tl.float32)
    low = left.to(dtype)
    return high, low, (left - low.to(tl.float32)).to(dtype)


@triton.jit
def _dot(a, b, acc):
    if INTERPRETED:  # which multiplies bfloat16 as if they were whole numbers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc)
