"""Attention whose keys have a bias, tile by tile: no matrix of queries by keys is ever whole.

The softmax is carried along a row as in https://arxiv.org/abs/2205.14135: when a larger logit comes, what was summed
until then shrinks.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import Plan, launch
from .products import add_narrow_product

FAR = tl.constexpr(-1e30)


@triton.jit
def load_rows(
    start, row, rows, stride, ALIGN: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, EDGE: tl.constexpr
):  # fmt: skip
    """Rows of D numbers as [len(row), WIDTH]; with EDGE some of them may be past the last."""
    channels = tl.arange(0, WIDTH)
    # As a product it is known to be a multiple, and numbers are read many at once.
    places = start + row[:, None] * (stride * ALIGN) + channels[None, :]
    if EDGE:
        tile = tl.load(places, mask=(row < rows)[:, None] & (channels < D)[None, :], other=0)
    elif WIDTH > D:
        tile = tl.load(places, mask=(row >= 0)[:, None] & (channels < D)[None, :], other=0)
    else:
        tile = tl.load(places)
    return tile


@triton.jit
def add_keys(
    q, key, value, bias, first, keys, scale, best, total, sums, skn, svn, sbn,
    ALIGN: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Attends to BLOCK_N more keys."""
    place = first + tl.arange(0, BLOCK_N)
    tile = load_rows(key, place, keys, skn, ALIGN, D, WIDTH, EDGE)
    products = add_narrow_product(q, tl.trans(tile), tl.zeros([q.shape[0], BLOCK_N], dtype=tl.float32))
    if EDGE:
        of_keys = tl.load(bias + place * sbn, mask=place < keys, other=-float('inf'))
    else:
        of_keys = tl.load(bias + place * sbn)
    # Powers of two instead of e: an instruction less for each pair.
    logits = products * scale + (of_keys.to(tl.float32) * 1.4426950408889634)[None, :]
    larger = tl.maximum(best, tl.max(logits, axis=1))
    weights = tl.exp2(logits - larger[:, None])
    shrink = tl.exp2(best - larger)
    total = total * shrink + tl.sum(weights, axis=1)
    tile = load_rows(value, place, keys, svn, ALIGN, D, WIDTH, EDGE)
    sums = add_narrow_product(weights.to(tile.dtype), tile, sums * shrink[:, None])
    return larger, total, sums


@triton.jit(do_not_specialize=['queries', 'keys'])
def attention_kernel(
    query, key, value, bias, out, heads, queries, keys, scale, sqb, sqh, sqn, skb, skh, skn, svb, svh, svn,
    sob, soh, son, sbb, sbn,
    ALIGN: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program is a block of one head's queries. Strides but those of the bias are in units of ALIGN numbers."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    query += (b * sqb + h * sqh) * ALIGN
    key += (b * skb + h * skh) * ALIGN
    value += (b * svb + h * svh) * ALIGN
    out += (b * sob + h * soh) * ALIGN
    bias += b * sbb
    row, channels = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, WIDTH)
    q = load_rows(query, row, queries, sqn, ALIGN, D, WIDTH, True)
    sums = tl.zeros([BLOCK_M, WIDTH], dtype=tl.float32)
    # Not minus infinity, whose difference to itself is no number: a key may have that bias.
    best = tl.full([BLOCK_M], FAR, dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    whole = keys // BLOCK_N * BLOCK_N
    for first in range(0, whole, BLOCK_N):
        best, total, sums = add_keys(
            q, key, value, bias, first, keys, scale, best, total, sums, skn, svn, sbn, ALIGN, D, WIDTH, BLOCK_N, False
        )
    if whole < keys:
        best, total, sums = add_keys(
            q, key, value, bias, whole, keys, scale, best, total, sums, skn, svn, sbn, ALIGN, D, WIDTH, BLOCK_N, True
        )
    places = out + row[:, None] * (son * ALIGN) + channels[None, :]
    within = (row < queries)[:, None] & (channels < D)[None, :]
    tl.store(places, (sums / total[:, None]).to(out.dtype.element_ty), mask=within)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    return (attend_operation if torch.compiler.is_dynamo_compiling() else launch_attention)(
        query, key, value, bias, scale
    )


@torch.library.custom_op('fewtokens::attend', mutates_args=())
def attend_operation(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    return launch_attention(query, key, value, bias, scale)


@attend_operation.register_fake
def _(query, key, value, bias, scale):
    return empty_like_a_projection(query)


def empty_like_a_projection(query: Tensor) -> Tensor:
    """[B, heads, N, D] in memory of [B, N, heads, D], as PyTorch's: what hosts make of it next is a view."""
    batch, heads, queries, width = query.shape
    return query.new_empty((batch, queries, heads, width)).transpose(1, 2)


BLOCK, WARPS, STAGES = 64, 4, 3
"""The fastest or nearly so from 400 to 4000 tokens, batch 1 to 8 and heads 64 to 128 wide, of ten settings tried."""
ALIGN = 8
"""Numbers read at once, 16 bytes."""


def launch_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """As `fewtokens.ops.attend`."""
    query, key, value = (each if is_aligned(each.stride()) else each.contiguous() for each in (query, key, value))
    out = empty_like_a_projection(query)
    launch(attention_kernel, _plan, (query, key, value, bias, out), scale)
    return out


@lru_cache
def is_aligned(strides: tuple[int, ...]) -> bool:
    """Whether every row begins at a multiple of what is read at once, its numbers side by side."""
    return strides[-1] == 1 and all(stride % ALIGN == 0 for stride in strides[:-1])


def _plan(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, out: Tensor, scale: float) -> Plan:
    batch, heads, queries, width = query.shape
    numbers = dict(heads=heads, queries=queries, keys=key.shape[2], scale=scale * math.log2(math.e))
    for name, each in dict(q=query, k=key, v=value, o=out).items():
        numbers |= {f's{name}{axis}': stride // ALIGN for axis, stride in zip('bhn', each.stride())}
    constants = dict(ALIGN=ALIGN, D=width, WIDTH=triton.next_power_of_2(width), BLOCK_M=BLOCK, BLOCK_N=BLOCK)
    return (triton.cdiv(queries, BLOCK), batch * heads), dict(
        **numbers, **dict(zip(('sbb', 'sbn'), bias.stride())), **constants, num_warps=WARPS, num_stages=STAGES
    )
