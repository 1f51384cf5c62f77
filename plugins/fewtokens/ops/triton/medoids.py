"""k-medoids of measured distances in one launch: a program does all of a sample, and its threads wait for each other.

What a program writes for its other threads to read lies in memory, with a barrier in between.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import on_device_of
from .pairing import HIGHEST, LOWEST


@triton.jit
def pick_farthest(distances, norms, medoids, N, k, BLOCK_N: tl.constexpr):
    """KKZ: the point of largest norm, then k - 1 others, each the farthest from the nearest of those before it."""
    points = tl.arange(0, BLOCK_N)
    here = points < N
    norm = tl.load(norms + points, mask=here, other=0).to(tl.float32)
    # Whole numbers in the same order; what is no number is the largest, as in torch.argmax.
    bits = norm.to(tl.int32, bitcast=True)
    order = tl.where(norm == 0, 0, tl.where(bits < 0, bits ^ HIGHEST, bits))
    order = tl.where(norm != norm, HIGHEST, order)
    chosen = tl.argmax(tl.where(here, order, LOWEST), axis=0)
    tl.store(medoids, chosen)
    nearest = tl.where(here, float('inf'), -float('inf'))
    for number in range(1, k):
        row = tl.load(distances + chosen * N + points, mask=here, other=-float('inf'))
        nearest = tl.where(row < nearest, row, nearest)
        # A chosen point stays at minus infinity: duplicates are not chosen twice.
        nearest = tl.where(points == chosen, -float('inf'), nearest)
        # Inside even if nothing is a number.
        chosen = tl.minimum(tl.argmax(nearest, axis=0), N - 1)
        tl.store(medoids + number, chosen)
    tl.debug_barrier()


@triton.jit
def assign(
    distances, medoids, labels, N, k,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Each point's nearest medoid, of equally near ones the first; a medoid's own is itself."""
    for first in range(0, N, BLOCK):
        points = first + tl.arange(0, BLOCK)
        here = points < N
        least = tl.full([BLOCK], float('inf'), dtype=tl.float32)
        label = tl.zeros([BLOCK], dtype=tl.int32)
        for start in range(0, k, AHEAD):
            for step in tl.static_range(AHEAD):
                # The last one again is no nearer than itself.
                number = tl.minimum(start + step, k - 1)
                row = distances + tl.load(medoids + number) * N
                distance = tl.load(row + points, mask=here, other=float('inf'))
                label = tl.where(distance < least, number, label)
                least = tl.where(distance < least, distance, least)
        tl.store(labels + points, label, mask=here)
    tl.debug_barrier()
    number = tl.arange(0, BLOCK_K)
    medoid = tl.load(medoids + number, mask=number < k, other=0)
    tl.store(labels + medoid, number, mask=number < k)
    tl.debug_barrier()


@triton.jit
def group(
    labels, grouped, starts, counts, N, k,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Lists points cluster by cluster, ascending in each; returns where clusters start and how many are in them."""
    cluster = tl.arange(0, BLOCK_K)
    known = cluster < k
    tl.store(counts + cluster, tl.zeros([BLOCK_K], dtype=tl.int32), mask=known)
    tl.debug_barrier()
    for first in range(0, N, BLOCK):
        points = first + tl.arange(0, BLOCK)
        label = tl.load(labels + points, mask=points < N, other=0)
        tl.atomic_add(counts + label, 1, mask=points < N, sem='relaxed')
    tl.debug_barrier()
    count = tl.load(counts + cluster, mask=known, other=0)
    start = tl.cumsum(count, axis=0) - count
    tl.store(starts + cluster, start, mask=known)
    place = start
    for first in range(0, N, AHEAD):
        for step in tl.static_range(AHEAD):
            point = first + step
            joins = tl.load(labels + point, mask=point < N, other=-1) == cluster
            tl.store(grouped + place, point, mask=joins)
            place += joins.to(tl.int32)
    tl.debug_barrier()
    return start, count


@triton.jit
def add_distances(distances, labels, grouped, starts, counts, sums, N, BLOCK_S: tl.constexpr):
    """The sum of each listed point's distances to its cluster's members: of others none is read."""
    for first in range(0, N, BLOCK_S):
        place = first + tl.arange(0, BLOCK_S)
        point = tl.load(grouped + place, mask=place < N, other=0)
        own = tl.load(labels + point, mask=place < N, other=-2)
        # The members of these points' clusters follow each other.
        lowest = tl.load(labels + tl.load(grouped + first))
        highest = tl.load(labels + tl.load(grouped + tl.minimum(first + BLOCK_S, N) - 1))
        end = tl.load(starts + highest) + tl.load(counts + highest)
        # In float64, where sums are exact: in which order distances are added must not show.
        total = tl.zeros([BLOCK_S, BLOCK_S], dtype=tl.float64)
        for beyond in range(tl.load(starts + lowest), end, BLOCK_S):
            others = beyond + tl.arange(0, BLOCK_S)
            other = tl.load(grouped + others, mask=others < end, other=0)
            theirs = tl.load(labels + other, mask=others < end, other=-1)
            pairs = distances + point[:, None] * N + other[None, :]
            total += tl.load(pairs, mask=own[:, None] == theirs[None, :], other=0).to(tl.float64)
        tl.store(sums + place, tl.sum(total, axis=1), mask=place < N)
    tl.debug_barrier()


@triton.jit
def move(distances, medoids, grouped, sums, start, count, N, k, tol, BLOCK_K: tl.constexpr):
    """To each cluster's member of smallest sum, of equals the first, if any medoid moves farther than `tol`.

    Returns whether one does.
    """
    cluster = tl.arange(0, BLOCK_K)
    known = cluster < k
    best = tl.load(sums + start, mask=known, other=0)
    place = start
    for step in range(1, tl.max(count, axis=0)):
        total = tl.load(sums + start + step, mask=step < count, other=float('inf'))
        place = tl.where(total < best, start + step, place)
        best = tl.where(total < best, total, best)
    old = tl.load(medoids + cluster, mask=known, other=0)
    new = tl.load(grouped + place, mask=known, other=0)
    shift = tl.load(distances + new * N + old, mask=known, other=0)
    # By index too: a point that isn't finite is far from itself.
    moving = tl.max((known & (new != old) & ((shift <= tol) == 0)).to(tl.int32), axis=0)
    # Of few clusters every warp has a copy, and must have read the old ones before one of them writes.
    tl.debug_barrier()
    tl.store(medoids + cluster, new, mask=known & (moving > 0))
    tl.debug_barrier()
    return moving


@triton.jit
def sort(medoids, marks, N, k, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Medoids in ascending order."""
    points, number = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    tl.store(marks + points, tl.zeros([BLOCK_N], dtype=tl.int32), mask=points < N)
    medoid = tl.load(medoids + number, mask=number < k, other=0)
    tl.debug_barrier()
    tl.store(marks + medoid, 1, mask=number < k)
    tl.debug_barrier()
    mark = tl.load(marks + points, mask=points < N, other=0)
    tl.store(medoids + tl.cumsum(mark, axis=0) - 1, points, mask=mark > 0)
    tl.debug_barrier()


@triton.jit(do_not_specialize=['k', 'max_iters', 'tol'])
def medoid_kernel(
    distances, norms, medoids, labels, grouped, starts, counts, sums, N, k, max_iters, tol,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_S: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    distances, norms, labels = distances + b * N * N, norms + b * N, labels + b * N
    grouped, sums = grouped + b * N, sums + b * N
    medoids, starts, counts = medoids + b * k, starts + b * k, counts + b * k
    pick_farthest(distances, norms, medoids, N, k, BLOCK_N)
    moving, rounds = 1, 0
    while (moving > 0) & (rounds < max_iters):
        assign(distances, medoids, labels, N, k, BLOCK, BLOCK_K, AHEAD)
        start, count = group(labels, grouped, starts, counts, N, k, BLOCK, BLOCK_K, AHEAD)
        add_distances(distances, labels, grouped, starts, counts, sums, N, BLOCK_S)
        moving = move(distances, medoids, grouped, sums, start, count, N, k, tol, BLOCK_K)
        rounds += 1
    sort(medoids, grouped, N, k, BLOCK_N, BLOCK_K)
    assign(distances, medoids, labels, N, k, BLOCK, BLOCK_K, AHEAD)


def choose_medoids(*args: Any) -> tuple[Tensor, Tensor]:
    return (choose_operation if torch.compiler.is_dynamo_compiling() else launch)(*args)


@torch.library.custom_op('fewtokens::choose_medoids', mutates_args=())
def choose_operation(distances: Tensor, norms: Tensor, k: int, max_iters: int, tol: float) -> tuple[Tensor, Tensor]:
    return launch(distances, norms, k, max_iters, tol)


@choose_operation.register_fake
def _(distances, norms, k, max_iters, tol):
    batch, count = norms.shape
    return tuple(distances.new_empty((batch, each), dtype=torch.int64) for each in (k, count))


def launch(distances: Tensor, norms: Tensor, k: int, max_iters: int, tol: float) -> tuple[Tensor, Tensor]:
    """As `fewtokens.ops.medoids.choose_medoids`, of distances in float32."""
    batch, count = norms.shape
    medoids, labels = (distances.new_empty((batch, each), dtype=torch.int64) for each in (k, count))
    starts, counts = distances.new_empty((2, batch, k), dtype=torch.int32)
    block_n = max(triton.next_power_of_2(count), 32)
    with on_device_of(distances):
        medoid_kernel[(batch,)](
            distances.contiguous(),
            norms.contiguous(),
            medoids,
            labels,
            distances.new_empty((batch, count), dtype=torch.int32),
            starts,
            counts,
            distances.new_empty((batch, count), dtype=torch.float64),
            count,
            k,
            max_iters,
            float(tol),
            BLOCK_N=block_n,
            BLOCK_K=max(triton.next_power_of_2(k), 32),
            BLOCK=min(block_n, 2048),
            BLOCK_S=32 if count <= 512 else 64,
            AHEAD=8,
            num_warps=8 if block_n <= 4096 else 16,
        )
    return medoids, labels
