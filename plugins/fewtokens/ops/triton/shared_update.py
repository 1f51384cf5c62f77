"""SharedUpdate: the merge, and the change that each token takes from its group."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import clustering
from .launching import Plan, launch


def merge_tokens(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (merge_operation if torch.compiler.is_dynamo_compiling() else launch_merge)(*args)


def merge_lengthened(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (lengthened_operation if torch.compiler.is_dynamo_compiling() else launch_lengthened)(*args)


@torch.library.custom_op('fewtokens::merge_tokens', mutates_args=())
def merge_operation(
    x: Tensor, grid: list[int], clusters: list[int], iters: int, window: int, sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return launch_merge(x, grid, clusters, iters, window, sizes)


@merge_operation.register_fake
def _(x, grid, clusters, iters, window, sizes):
    n_centers = clusters[0] * clusters[1]
    return (
        x.new_empty((x.shape[0], n_centers, x.shape[2])),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty((x.shape[0], n_centers), dtype=torch.float32),
    )


@torch.library.custom_op('fewtokens::merge_lengthened', mutates_args=())
def lengthened_operation(
    x: Tensor, grid: list[int], clusters: list[int], iters: int, window: int, sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return launch_lengthened(x, grid, clusters, iters, window, sizes)


@lengthened_operation.register_fake
def _(x, grid, clusters, iters, window, sizes):
    n_centers = clusters[0] * clusters[1]
    return (
        x.new_empty((x.shape[0], n_centers, x.shape[2])),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty((x.shape[0], n_centers), dtype=torch.float32),
        x.new_empty((x.shape[0], n_centers), dtype=torch.float32),
    )


def launch_merge(
    x: Tensor,
    grid: list[int],
    clusters: list[int],
    iters: int,
    window: int,
    sizes: Tensor | None,
    together: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `fewtokens.ops.merge_tokens`."""
    done = clustering.run(x, grid, clusters, iters, window, None, True, sizes, False, together)
    return done.means, done.labels, done.merged


def launch_lengthened(
    x: Tensor,
    grid: list[int],
    clusters: list[int],
    iters: int,
    window: int,
    sizes: Tensor | None,
    together: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `fewtokens.ops.shared_update.merge_lengthened`."""
    done = clustering.run(x, grid, clusters, iters, window, None, True, sizes, True, together)
    return done.means, done.labels, done.merged, done.spreads


@triton.jit(do_not_specialize=['N'])
def restore_kernel(
    before, tokens, centers, labels, out, N, C,
    sbb, sbn, sbc, stb, stn, stc, scb, scn, scc,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(2).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    here = n < N
    inside = here[:, None] & (channels < C)
    m = tl.load(labels + b * N + n, mask=here, other=0)[:, None]
    n = n[:, None]
    own = tl.load(before + b * sbb + n * sbn + channels * sbc, mask=inside, other=0).to(tl.float32)
    now = tl.load(tokens + b * stb + m * stn + channels * stc, mask=inside, other=0).to(tl.float32)
    then = tl.load(centers + b * scb + m * scn + channels * scc, mask=inside, other=0).to(tl.float32)
    tl.store(out + (b * N + n) * C + channels, (own + (now - then)).to(out.dtype.element_ty), mask=inside)


def restore_updated(*args: Any) -> Tensor:
    return (restore_operation if torch.compiler.is_dynamo_compiling() else launch_restore)(*args)


@torch.library.custom_op('fewtokens::restore_updated', mutates_args=())
def restore_operation(before: Tensor, tokens: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    return launch_restore(before, tokens, centers, labels)


@restore_operation.register_fake
def _(before, tokens, centers, labels):
    return before.new_empty(before.shape)


def launch_restore(before: Tensor, tokens: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """As `fewtokens.ops.shared_update.restore_updated`."""
    out = before.new_empty(before.shape)
    launch(restore_kernel, _plan_restore, (before, tokens, centers, labels.contiguous(), out))
    return out


def _plan_restore(before: Tensor, tokens: Tensor, centers: Tensor, labels: Tensor, out: Tensor) -> Plan:
    batch, n_tokens, channels = before.shape
    block_c = min(triton.next_power_of_2(channels), 512)
    block_n = max(4096 // block_c, 1)
    strides = {
        f's{name}{axis}': stride
        for name, each in dict(b=before, t=tokens, c=centers).items()
        for axis, stride in zip('bnc', each.stride())
    }
    programs = (triton.cdiv(n_tokens, block_n), triton.cdiv(channels, block_c), batch)
    return programs, dict(N=n_tokens, C=channels, **strides, BLOCK_N=block_n, BLOCK_C=block_c, num_warps=4)
