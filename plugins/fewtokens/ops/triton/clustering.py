"""Runs the steps of grid clustering, in one launch whose programs wait for each other or in one launch each."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..grid import Grid
from . import products, steps

TOGETHER = not products.INTERPRETED.value
"""Whether one launch does all steps. Interpreted programs run one after the other: none can wait for a later one."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Plan:
    """Sizes of blocks, and how many work items each step has."""

    options: dict[str, int]
    items: dict[str, int]


@lru_cache(maxsize=256)
def make_plan(batch: int, channels: int, itemsize: int, grid: Grid, clusters: Grid, window: int) -> Plan:
    """For tokens whose numbers have `itemsize` bytes."""
    reach = window // 2
    tile = 2 if (2 + 2 * reach) ** 2 <= 128 else 1
    at_home = 1
    for size, cells in zip(grid, clusters):
        at_home *= min(-(-tile * size // cells), size)
    block_p = min(max(triton.next_power_of_2(at_home), 16), 64)
    block_c = triton.next_power_of_2(channels)
    block_q = max(triton.next_power_of_2((tile + 2 * reach) ** 2), 16)
    # A program waits for its loads more than it computes: few large ones, as far as there are registers.
    block_s = min(max(block_c, 16), 256 // itemsize)
    block_k = block_s if max(block_p, block_q) == 16 else min(block_s, 64)
    options = dict(
        TILE=tile,
        REACH=reach,
        BLOCK_P=block_p,
        BLOCK_Q=block_q,
        BLOCK_W=triton.next_power_of_2((2 * reach + 1) ** 2),
        BLOCK_K=block_k,
        BLOCK_S=block_s,
        BLOCK_C=block_c,
        BLOCK_N=min(max(8192 // block_c, 1), 64),
        BLOCK_M=4096 if grid[0] * grid[1] <= 4096 else 8192,
    )
    counts = dict(parts=-(-at_home // block_p), slices=-(-channels // block_s))
    centers = clusters[0] * clusters[1]
    tiles, fours = (-(-clusters[0] // side) * -(-clusters[1] // side) for side in (tile, 4))
    items = dict(
        pool=centers, compare=tiles * counts['parts'], median=1, average=fours * counts['slices'], members=centers
    )
    return Plan({**options, **counts}, {name: batch * count for name, count in items.items()})


@triton.jit
def wait_for_all(counter, arrivals):
    """Until all programs are here: what they wrote before can be read after."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem='acq_rel')
    while tl.atomic_add(counter, 0, sem='acq_rel') < arrivals:
        pass
    tl.debug_barrier()


# These vary with the grid: the code is the same whatever divides them.
PLAIN = ['H', 'W', 'GH', 'GW', 'ssb', 'ssn', 'parts', 'slices', 'iters', 'fixed']
PLAIN += ['n_pool', 'n_compare', 'n_median', 'n_average', 'n_members']


@triton.jit(do_not_specialize=PLAIN)
def cluster_kernel(
    x, sizes, centers, similar, squared, temperature, labels, means, merged, spreads, counter,
    fixed, H, W, GH, GW, C, sxb, sxn, sxc, ssb, ssn, parts, slices, iters,
    n_pool, n_compare, n_median, n_average, n_members,
    STEP: tl.constexpr, MEASURED: tl.constexpr, MEMBERS: tl.constexpr, SIZED: tl.constexpr, LENGTHEN: tl.constexpr,
    TILE: tl.constexpr, REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_W: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr, WHOLE: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    """One step, or with STEP 'all' all of them."""
    first, programs = tl.program_id(0), tl.num_programs(0)
    arrivals = 0
    if STEP == 'pool' or STEP == 'all':
        for item in range(first, n_pool, programs):
            steps.pool(item, x, centers, H, W, GH, GW, C, sxb, sxn, sxc, BLOCK_C, BLOCK_N)
    if STEP == 'all':
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'measure' or STEP == 'all':
        for item in range(first, n_compare, programs):
            steps.compare(
                item, x, centers, similar, squared, labels, H, W, GH, GW, C, sxb, sxn, sxc, parts,
                TILE, REACH, BLOCK_P, BLOCK_Q, BLOCK_K, MEASURED,
            )  # fmt: skip
    if STEP == 'all' and MEASURED:
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'median' or (STEP == 'all' and MEASURED):
        for item in range(first, n_median, programs):
            steps.halve_median(item, squared, temperature, H * W, LEAST, BLOCK_M, WHOLE)
    if STEP == 'all':
        for _ in range(iters):
            arrivals += programs
            wait_for_all(counter, arrivals)
            for item in range(first, n_average, programs):
                steps.average(
                    item, x, similar, temperature, fixed, centers, H, W, GH, GW, C, sxb, sxn, sxc, slices,
                    4, REACH, 16, BLOCK_W, 64, BLOCK_S,
                )  # fmt: skip
            arrivals += programs
            wait_for_all(counter, arrivals)
            for item in range(first, n_compare, programs):
                steps.compare(
                    item, x, centers, similar, squared, labels, H, W, GH, GW, C, sxb, sxn, sxc, parts,
                    TILE, REACH, BLOCK_P, BLOCK_Q, BLOCK_K, False,
                )  # fmt: skip
    if STEP == 'average':
        for item in range(first, n_average, programs):
            steps.average(
                item, x, similar, temperature, fixed, centers, H, W, GH, GW, C, sxb, sxn, sxc, slices,
                4, REACH, 16, BLOCK_W, 64, BLOCK_S,
            )  # fmt: skip
    if STEP == 'compare':
        for item in range(first, n_compare, programs):
            steps.compare(
                item, x, centers, similar, squared, labels, H, W, GH, GW, C, sxb, sxn, sxc, parts,
                TILE, REACH, BLOCK_P, BLOCK_Q, BLOCK_K, False,
            )  # fmt: skip
    if STEP == 'all' and MEMBERS:
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'members' or (STEP == 'all' and MEMBERS):
        for item in range(first, n_members, programs):
            steps.gather_members(
                item, x, labels, sizes, centers, means, merged, spreads, H, W, GH, GW, C, sxb, sxn, sxc, ssb, ssn,
                REACH, BLOCK_C, BLOCK_N, SIZED, LENGTHEN,
            )  # fmt: skip


@dataclass
class Clustering:
    """The buffers of one clustering, all of them written when it has run."""

    centers: Tensor
    """[B, M, C] float32."""
    labels: Tensor
    """[B, N] int64."""
    means: Tensor | None = None
    """[B, M, C] in the tokens' type, if groups were asked for."""
    merged: Tensor | None = None
    """[B, M] float32."""
    spreads: Tensor | None = None
    """[B, M] float32, if means were to be lengthened."""


def each(temperature: Tensor | None, batch: int) -> Tensor | None:
    """Temperatures [B, 1, ...] or one as [B] float32."""
    return None if temperature is None else temperature.to(torch.float32).reshape(-1).expand(batch).contiguous()


def run(
    x: Tensor,
    grid: Grid,
    clusters: Grid,
    iters: int,
    window: int,
    temperature: Tensor | float | None,
    members: bool = False,
    sizes: Tensor | None = None,
    lengthen: bool = False,
    together: bool | None = None,
) -> Clustering:
    """Clusters tokens [B, H*W, C] of a CUDA device.

    Args:
        temperature: one, or [B] of them; None follows the data.
        members: whether to gather the means of each label's tokens.
        sizes: of the tokens.
        lengthen: whether to lengthen those means, and to measure how far the members lie apart.
        together: whether one launch does all steps; None: `TOGETHER`.
    """
    batch, n_tokens, channels = x.shape
    plan = make_plan(batch, channels, x.element_size(), tuple(grid), tuple(clusters), window)
    n_centers, around = clusters[0] * clusters[1], (window // 2 * 2 + 1) ** 2
    new = x.new_empty
    measured = temperature is None and iters > 0
    result = Clustering(
        centers=new((batch, n_centers, channels), dtype=torch.float32),
        labels=new((batch, n_tokens), dtype=torch.int64),
    )
    if members:
        result.means = new((batch, n_centers, channels))
        result.merged = new((batch, n_centers), dtype=torch.float32)
    if lengthen:
        result.spreads = new((batch, n_centers), dtype=torch.float32)
    fixed = 1.0
    if temperature is None:
        temperature = new((batch,), dtype=torch.float32)
    elif isinstance(temperature, Tensor):
        temperature = each(temperature, batch)
    else:
        temperature, fixed = None, float(temperature)
    together = TOGETHER if together is None else together
    arguments = dict(
        x=x,
        sizes=sizes,
        centers=result.centers,
        similar=new((batch, n_tokens, around), dtype=torch.float32),
        squared=new((batch, n_tokens), dtype=torch.float32) if measured else None,
        temperature=temperature,
        fixed=fixed,
        labels=result.labels,
        means=result.means,
        merged=result.merged,
        spreads=result.spreads,
        counter=torch.zeros((1,), dtype=torch.int32, device=x.device) if together else None,
        **dict(zip(('H', 'W', 'GH', 'GW'), (*grid, *clusters))),
        C=channels,
        **dict(zip(('sxb', 'sxn', 'sxc'), x.stride())),
        **dict(zip(('ssb', 'ssn'), (0, 0) if sizes is None else sizes.stride())),
        iters=iters,
        **{f'n_{name}': count for name, count in plan.items.items()},
        MEASURED=measured,
        MEMBERS=members,
        SIZED=sizes is not None,
        LENGTHEN=lengthen,
        WHOLE=plan.options['BLOCK_M'] >= n_tokens,
        LEAST=TINY,
        **plan.options,
    )
    if together:
        cluster_kernel[(count_programs(x.device),)](
            **arguments, STEP='all', num_warps=WARPS, num_stages=STAGES, launch_cooperative_grid=True
        )
        return result
    order = ['pool', 'measure', *['median'] * measured, *['average', 'compare'] * iters, *['members'] * members]
    for step in order:
        n_items = plan.items['compare' if step == 'measure' else step]
        cluster_kernel[(n_items,)](**arguments, STEP=step, num_warps=WARPS, num_stages=STAGES)
    return result


WARPS, STAGES = 4, 2
PROGRAMS_EACH = 2
"""Programs that wait for each other, on one multiprocessor: all must find room at once."""


def count_programs(device: torch.device, each: int | None = None) -> int:
    return (PROGRAMS_EACH if each is None else each) * _multiprocessors(device)


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
