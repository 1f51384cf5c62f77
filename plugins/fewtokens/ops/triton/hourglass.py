"""Hourglass: the clustering, the weights that tokens are made from centers with, and their product."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import clustering
from .launching import on_device_of
from .products import add_product

LOWEST = tl.constexpr(-(2**31))
HIGHEST = tl.constexpr(2**31 - 1)


def cluster_tokens(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return (cluster_operation if torch.compiler.is_dynamo_compiling() else launch_clustering)(x, *args)


@torch.library.custom_op('fewtokens::cluster_tokens', mutates_args=())
def cluster_operation(
    x: Tensor, grid: list[int], clusters: list[int], iters: int, window: int, heat: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """With a temperature for each sample in `heat`, or one for all."""
    return launch_clustering(x, grid, clusters, iters, window, heat, temperature)


@cluster_operation.register_fake
def _(x, grid, clusters, iters, window, heat, temperature):
    centers = x.new_empty((x.shape[0], clusters[0] * clusters[1], x.shape[2]), dtype=torch.float32)
    return centers, x.new_empty(x.shape[:2], dtype=torch.int64)


def launch_clustering(
    x: Tensor,
    grid: list[int],
    clusters: list[int],
    iters: int,
    window: int,
    heat: Tensor | None,
    temperature: float,
    together: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """As `fewtokens.ops.hourglass.cluster_widely`."""
    done = clustering.run(x, grid, clusters, iters, window, temperature if heat is None else heat, together=together)
    return done.centers, done.labels


@triton.jit(do_not_specialize=['N'])
def compare_kernel(
    x, centers, similar, N, M, C, sxb, sxn, sxc,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """2 x.c - |c|**2 of all pairs, [B, N, M]."""
    b = tl.program_id(2).to(tl.int64)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    products = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    lengths = tl.zeros([BLOCK_M], dtype=tl.float32)
    for k in range(0, C, BLOCK_K):
        channels = k + tl.arange(0, BLOCK_K)
        inside = (channels < C)[None, :]
        tokens = tl.load(
            x + b * sxb + n[:, None] * sxn + channels[None, :] * sxc, mask=(n < N)[:, None] & inside, other=0
        )
        rows = tl.load(centers + (b * M + m)[:, None] * C + channels[None, :], mask=(m < M)[:, None] & inside, other=0)
        products = add_product(tokens, tl.trans(rows), products)
        lengths += tl.sum(rows * rows, axis=1)
    at = (b * N + n)[:, None] * M + m[None, :]
    tl.store(similar + at, 2 * products - lengths[None, :], mask=(n < N)[:, None] & (m < M)[None, :])


@triton.jit(do_not_specialize=['N', 'heat'])
def weigh_kernel(
    similar, heats, heat, nearest, weights, N, M,
    K: tl.constexpr, SQUARES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The K most similar of each row, by index, and their weights, which or whose squares add up to one."""
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    here = (n < N)[:, None] & (m < M)[None, :]
    values = tl.load(similar + (b * N + n)[:, None] * M + m[None, :], mask=here, other=-float('inf'))
    # Whole numbers in the same order: what is no number first, as in torch.topk, and what isn't there last.
    bits = values.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ HIGHEST, bits)
    order = tl.where(values != values, HIGHEST, order)
    order = tl.where((m < M)[None, :], order, LOWEST)
    # The K-th of them, bit by bit: the largest number that at least K reach.
    least = tl.where(tl.sum((order >= 0).to(tl.int32), axis=1) >= K, 0, LOWEST)
    for step in range(31):
        trial = least + (1 << (30 - step))
        reached = tl.sum((order >= trial[:, None]).to(tl.int32), axis=1)
        least = tl.where(reached >= K, trial, least)
    above, equal = order > least[:, None], order == least[:, None]
    room = K - tl.sum(above.to(tl.int32), axis=1)
    chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=1) <= room[:, None]))
    if heats is not None:
        heat = tl.load(heats + b)
    best = tl.max(tl.where(here, values, -float('inf')), axis=1)
    best = tl.where(n < N, best, 0.0)
    shares = tl.where(chosen, tl.exp((values - best[:, None]) / heat), 0.0)
    total = tl.sqrt(tl.sum(shares * shares, axis=1)) if SQUARES else tl.sum(shares, axis=1)
    total = tl.where(n < N, total, 1.0)
    at = (b * N + n)[:, None] * K + tl.cumsum(chosen.to(tl.int32), axis=1) - 1
    tl.store(nearest + at, tl.broadcast_to(m[None, :], [BLOCK_N, BLOCK_M]).to(tl.int64), mask=chosen & here)
    tl.store(weights + at, shares / total[:, None], mask=chosen & here)


def reconstruction_weights(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return (weights_operation if torch.compiler.is_dynamo_compiling() else launch_weights)(x, *args)


@torch.library.custom_op('fewtokens::reconstruction_weights', mutates_args=())
def weights_operation(
    before: Tensor, centers: Tensor, k: int, heat: Tensor | None, temperature: float, squares: bool
) -> tuple[Tensor, Tensor]:
    return launch_weights(before, centers, k, heat, temperature, squares)


@weights_operation.register_fake
def _(before, centers, k, heat, temperature, squares):
    shape = (*before.shape[:2], k)
    return before.new_empty(shape, dtype=torch.int64), before.new_empty(shape, dtype=torch.float32)


def launch_weights(
    before: Tensor, centers: Tensor, k: int, heat: Tensor | None, temperature: float, squares: bool
) -> tuple[Tensor, Tensor]:
    """As `fewtokens.ops.hourglass.reconstruction_weights`, with k at most the number of centers."""
    batch, n_tokens, channels = before.shape
    n_centers = centers.shape[1]
    centers = centers.to(torch.float32).contiguous()
    similar = before.new_empty((batch, n_tokens, n_centers), dtype=torch.float32)
    nearest = before.new_empty((batch, n_tokens, k), dtype=torch.int64)
    weights = before.new_empty((batch, n_tokens, k), dtype=torch.float32)
    block_n, block_m = 64, 64
    with on_device_of(before):
        compare_kernel[(triton.cdiv(n_centers, block_m), triton.cdiv(n_tokens, block_n), batch)](
            before, centers, similar, n_tokens, n_centers, channels, *before.stride(),
            BLOCK_N=block_n, BLOCK_M=block_m, BLOCK_K=32, num_warps=4, num_stages=3,
        )  # fmt: skip
    block_m = triton.next_power_of_2(n_centers)
    block_n = max(2048 // block_m, 1)
    with on_device_of(before):
        weigh_kernel[(triton.cdiv(n_tokens, block_n), batch)](
            similar, clustering.each(heat, batch), temperature, nearest, weights, n_tokens, n_centers,
            K=k, SQUARES=squares, BLOCK_N=block_n, BLOCK_M=block_m, num_warps=4 if block_m <= 4096 else 8,
        )  # fmt: skip
    return nearest, weights


@triton.jit(do_not_specialize=['N', 'K'])
def apply_kernel(
    z, nearest, weights, out, N, D, K, szb, szm, szd, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Sums of K rows of z by weights, [B, N, D]."""
    b = tl.program_id(2).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (n < N)[:, None] & (d < D)[None, :]
    total = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    for k in range(0, K):
        at = (b * N + n) * K + k
        m = tl.load(nearest + at, mask=n < N, other=0)
        weight = tl.load(weights + at, mask=n < N, other=0)
        rows = tl.load(z + b * szb + m[:, None] * szm + d[None, :] * szd, mask=inside, other=0)
        total += weight[:, None] * rows.to(tl.float32)
    tl.store(out + (b * N + n)[:, None] * D + d[None, :], total.to(out.dtype.element_ty), mask=inside)


def apply_weights(x: Tensor, *args: Any) -> Tensor:
    return (product_operation if torch.compiler.is_dynamo_compiling() else launch_product)(x, *args)


@torch.library.custom_op('fewtokens::apply_weights', mutates_args=())
def product_operation(z: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    return launch_product(z, nearest, weights)


@product_operation.register_fake
def _(z, nearest, weights):
    return z.new_empty((*nearest.shape[:2], z.shape[2]))


def launch_product(z: Tensor, nearest: Tensor, weights: Tensor) -> Tensor:
    """As `fewtokens.ops.hourglass.apply_weights`."""
    batch, n_tokens, k = nearest.shape
    width = z.shape[2]
    out = z.new_empty((batch, n_tokens, width))
    block_d = min(triton.next_power_of_2(width), 256)
    block_n = max(2048 // block_d, 1)
    with on_device_of(z):
        apply_kernel[(triton.cdiv(n_tokens, block_n), triton.cdiv(width, block_d), batch)](
            z, nearest.contiguous(), weights.contiguous(), out, n_tokens, width, k, *z.stride(),
            BLOCK_N=block_n, BLOCK_D=block_d, num_warps=4,
        )  # fmt: skip
    return out
