"""Attention whose keys have a bias, tile by tile: no matrix of queries by keys is ever whole.

The softmax is carried along a row as in https://arxiv.org/abs/2205.14135: when a larger logit comes, what was summed
until then shrinks.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .products import add_narrow_product

FAR = tl.constexpr(-1e30)


@triton.jit
def add_keys(
    q, q_rest, k, v, bias, first, keys, scale, best, total, sums, sums_rest, skn, skd, svn, svd, sbn,
    D: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, BLOCK_N: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Attends to BLOCK_N more keys; with EDGE some of them may be past the last."""
    key = first + tl.arange(0, BLOCK_N)
    here, channels = key < keys, tl.arange(0, WIDTH)
    k_tile = tl.load(
        k + key[None, :] * skn + channels[:, None] * skd,
        mask=(here[None, :] if EDGE else key[None, :] >= 0) & (channels < D)[:, None] if EDGE or WIDTH > D else None,
        other=0 if EDGE or WIDTH > D else None,
    )
    logits = add_narrow_product(q, k_tile, tl.zeros([q.shape[0], BLOCK_N], dtype=tl.float32))
    if REST > 0:
        rest = WIDTH + tl.arange(0, REST)
        k_rest = tl.load(
            k + key[None, :] * skn + rest[:, None] * skd, mask=here[None, :] & (rest < D)[:, None], other=0
        )
        logits = add_narrow_product(q_rest, k_rest, logits)
    if EDGE:
        of_keys = tl.load(bias + key * sbn, mask=here, other=-float('inf'))
    else:
        of_keys = tl.load(bias + key * sbn)
    # Powers of two instead of e: one instruction less for each pair.
    logits = logits * scale + (of_keys.to(tl.float32) * 1.4426950408889634)[None, :]
    larger = tl.maximum(best, tl.max(logits, axis=1))
    weights = tl.exp2(logits - larger[:, None])
    shrink = tl.exp2(best - larger)
    total = total * shrink + tl.sum(weights, axis=1)
    weights = weights.to(v.dtype.element_ty)
    v_tile = tl.load(
        v + key[:, None] * svn + channels[None, :] * svd,
        mask=(here[:, None] if EDGE else key[:, None] >= 0) & (channels < D)[None, :] if EDGE or WIDTH > D else None,
        other=0 if EDGE or WIDTH > D else None,
    )
    sums = add_narrow_product(weights, v_tile, sums * shrink[:, None])
    if REST > 0:
        v_rest = tl.load(
            v + key[:, None] * svn + rest[None, :] * svd, mask=here[:, None] & (rest < D)[None, :], other=0
        )
        sums_rest = add_narrow_product(weights, v_rest, sums_rest * shrink[:, None])
    return larger, total, sums, sums_rest


@triton.jit(do_not_specialize=['queries', 'keys'])
def attention_kernel(
    query, key, value, bias, out, heads, queries, keys, scale, sqb, sqh, sqn, sqd, skb, skh, skn, skd, svb, svh, svn,
    svd, sbb, sbn, sob, soh, son,
    D: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program is a block of one head's queries."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.arange(0, WIDTH)
    rest = WIDTH + tl.arange(0, REST if REST > 0 else 1)
    query += b * sqb + h * sqh
    key += b * skb + h * skh
    value += b * svb + h * svh
    bias += b * sbb
    within = (row < queries)[:, None]
    q = tl.load(query + row[:, None] * sqn + channels[None, :] * sqd, mask=within & (channels < D)[None, :], other=0)
    q_rest = q
    sums = tl.zeros([BLOCK_M, WIDTH], dtype=tl.float32)
    sums_rest = sums
    if REST > 0:
        q_rest = tl.load(query + row[:, None] * sqn + rest[None, :] * sqd, mask=within & (rest < D)[None, :], other=0)
        sums_rest = tl.zeros([BLOCK_M, REST], dtype=tl.float32)
    # Not minus infinity, whose difference to itself is no number: a key may have that bias.
    best = tl.full([BLOCK_M], FAR, dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    whole = keys // BLOCK_N * BLOCK_N
    for first in range(0, whole, BLOCK_N):
        best, total, sums, sums_rest = add_keys(
            q, q_rest, key, value, bias, first, keys, scale, best, total, sums, sums_rest, skn, skd, svn, svd, sbn,
            D, WIDTH, REST, BLOCK_N, False,
        )  # fmt: skip
    if whole < keys:
        best, total, sums, sums_rest = add_keys(
            q, q_rest, key, value, bias, whole, keys, scale, best, total, sums, sums_rest, skn, skd, svn, svd, sbn,
            D, WIDTH, REST, BLOCK_N, True,
        )  # fmt: skip
    out += b * sob + h * soh
    tl.store(
        out + row[:, None] * son + channels[None, :],
        (sums / total[:, None]).to(out.dtype.element_ty),
        mask=within & (channels < D)[None, :],
    )
    if REST > 0:
        tl.store(
            out + row[:, None] * son + rest[None, :],
            (sums_rest / total[:, None]).to(out.dtype.element_ty),
            mask=within & (rest < D)[None, :],
        )


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


def plan(batch: int, heads: int, queries: int, width: int) -> dict[str, int]:
    """Sizes of blocks: small ones where there are too few queries to keep a device busy."""
    few = batch * heads * triton.cdiv(queries, 128) < 132
    whole = 1 << (max(width, 16).bit_length() - 1)
    rest = width - whole
    return dict(
        D=width,
        WIDTH=whole,
        REST=max(triton.next_power_of_2(rest), 16) if rest > 0 else 0,
        BLOCK_M=64 if few else 128,
        BLOCK_N=64,
        num_warps=4 if few else 8,
        num_stages=3,
    )


def launch_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, **changes: int
) -> Tensor:
    """As `fewtokens.ops.attend`; `changes` of the plan."""
    batch, heads, queries, width = query.shape
    out = empty_like_a_projection(query)
    options = {**plan(batch, heads, queries, width), **changes}
    attention_kernel[(triton.cdiv(queries, options['BLOCK_M']), batch * heads)](
        query, key, value, bias, out, heads, queries, key.shape[2], scale * math.log2(math.e), *query.stride(),
        *key.stride(), *value.stride(), *bias.stride(), *out.stride()[:3], **options,
    )  # fmt: skip
    return out
