"""Runs the steps of grid clustering, in one launch whose programs wait for each other or in one launch each."""

from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..grid import Grid
from . import gram_steps, products, steps
from .launching import on_device_of

TOGETHER = not products.INTERPRETED.value
"""Whether one launch does all steps. Interpreted programs run one after the other: none can wait for a later one."""
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Plan:
    """Sizes of blocks, and how many work items each step has."""

    gram: bool
    """Whether iterations are on products between tokens: `gram_steps`."""
    options: dict[str, int]
    items: dict[str, int]


MOST_RELATED = 64
"""How many tokens may join one center where their products with each other are kept, which grow with the square."""


@lru_cache(maxsize=256)
def make_plan(batch: int, channels: int, itemsize: int, grid: Grid, clusters: Grid, window: int, iters: int) -> Plan:
    """For tokens whose numbers have `itemsize` bytes."""
    reach = window // 2
    related = count_related(grid, clusters, reach)
    # A pooled center is of tokens that may join it, unless they may join but one or cells are more than tokens.
    if iters > 0 and 1 <= reach <= 3 and related <= MOST_RELATED and all(c <= s for c, s in zip(clusters, grid)):
        return _plan_products(batch, channels, itemsize, grid, clusters, reach, related)
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
        **_common_blocks(grid, block_c),
    )
    counts = dict(parts=-(-at_home // block_p), slices=-(-channels // block_s))
    centers = clusters[0] * clusters[1]
    tiles, fours = (-(-clusters[0] // side) * -(-clusters[1] // side) for side in (tile, 4))
    items = dict(
        pool=centers,
        **dict.fromkeys(('measure', 'compare'), tiles * counts['parts']),
        median=1,
        average=fours * counts['slices'],
        members=centers,
    )
    return Plan(False, {**options, **counts}, {name: batch * count for name, count in items.items()})


def _common_blocks(grid: Grid, block_c: int) -> dict[str, int]:
    return dict(
        BLOCK_C=block_c,
        BLOCK_N=min(max(8192 // block_c, 1), 64),
        BLOCK_M=4096 if grid[0] * grid[1] <= 4096 else 8192,
    )


def count_related(grid: Grid, clusters: Grid, reach: int) -> int:
    """Most tokens that may join one center."""
    most = 1
    for size, cells in zip(grid, clusters):
        edges = [-(-min(max(cell, 0), cells) * size // cells) for cell in range(-reach, cells + reach + 1)]
        most *= max(end - start for start, end in zip(edges, edges[2 * reach + 1 :]))
    return most


def _plan_products(
    batch: int, channels: int, itemsize: int, grid: Grid, clusters: Grid, reach: int, related: int
) -> Plan:
    block_t = 64
    options = dict(
        REACH=reach,
        BLOCK_P=MOST_RELATED,
        # Rows of products start where four numbers can be read at once.
        quads=-(-related // 4),
        BLOCK_W=max(triton.next_power_of_2((2 * reach + 1) ** 2), 16),
        BLOCK_K=min(max(triton.next_power_of_2(channels), 32), 128 if itemsize == 2 else 32),
        BLOCK_T=block_t,
        # Loads that are under way at once: what `relate` reads is much, and what it computes little.
        DEPTH=3,
        **_common_blocks(grid, triton.next_power_of_2(channels)),
    )
    items = dict.fromkeys(('relate', 'iterate', 'average', 'members'), clusters[0] * clusters[1])
    items |= dict.fromkeys(('measure', 'nearest'), -(-grid[0] * grid[1] // block_t)) | dict(median=1)
    return Plan(True, options, {name: batch * count for name, count in items.items()})


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


PLAIN_OF_GRAM = ['fixed', 'B', 'H', 'W', 'GH', 'GW', 'ssb', 'ssn', 'quads', 'number', 'last']


@triton.jit(do_not_specialize=PLAIN_OF_GRAM)
def gram_kernel(
    x, sizes, products, weights, similar, own, squared, temperature, labels, centers, means, merged, spreads, counter,
    fixed, B, H, W, GH, GW, C, sxb, sxn, sxc, ssb, ssn, quads, number, last,
    STEP: tl.constexpr, MEASURED: tl.constexpr, MEMBERS: tl.constexpr, SIZED: tl.constexpr, LENGTHEN: tl.constexpr,
    REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
    DEPTH: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    WHOLE: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    """As `cluster_kernel` on products between tokens: one step, iterations `number` to `last`, or all."""
    first, programs = tl.program_id(0), tl.num_programs(0)
    n_centers, n_blocks = B * GH * GW, B * ((H * W + BLOCK_T - 1) // BLOCK_T)
    # Two tables: one is read while the other is written.
    table = B.to(tl.int64) * H * W * BLOCK_W
    arrivals = 0
    if STEP == 'relate' or STEP == 'all':
        for item in range(first, n_centers, programs):
            gram_steps.relate(
                item, x, products, weights, similar, own, H, W, GH, GW, C, sxb, sxn, sxc, quads,
                REACH, BLOCK_P, BLOCK_W, BLOCK_K, DEPTH,
            )  # fmt: skip
    if STEP == 'all':
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'measure' or (STEP == 'all' and MEASURED):
        for item in range(first, n_blocks, programs):
            gram_steps.find_nearest(
                item, similar, own, labels, squared, H, W, GH, GW, REACH, BLOCK_T, BLOCK_W, True
            )  # fmt: skip
    if STEP == 'all' and MEASURED:
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'median' or (STEP == 'all' and MEASURED):
        for item in range(first, B, programs):
            steps.halve_median(item, squared, temperature, H * W, LEAST, BLOCK_M, WHOLE)
    if STEP == 'all' and MEASURED:
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'iterate' or STEP == 'all':
        for turn in range(number, last):
            before, after = similar + turn % 2 * table, similar + (1 - turn % 2) * table
            for item in range(first, n_centers, programs):
                gram_steps.iterate(
                    item, products, weights, before, after, temperature, fixed, H, W, GH, GW, quads,
                    REACH, BLOCK_P, BLOCK_W,
                )  # fmt: skip
            if STEP == 'all':
                arrivals += programs
                wait_for_all(counter, arrivals)
    if STEP == 'nearest' or STEP == 'all':
        for item in range(first, n_blocks, programs):
            gram_steps.find_nearest(
                item, similar + last % 2 * table, own, labels, squared, H, W, GH, GW, REACH, BLOCK_T, BLOCK_W, False
            )  # fmt: skip
    if STEP == 'average' or (STEP == 'all' and not MEMBERS):
        for item in range(first, n_centers, programs):
            gram_steps.average(
                item, x, weights, centers, H, W, GH, GW, C, sxb, sxn, sxc, REACH, BLOCK_P, BLOCK_C, BLOCK_N
            )  # fmt: skip
    if STEP == 'all' and MEMBERS:
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'members' or (STEP == 'all' and MEMBERS):
        for item in range(first, n_centers, programs):
            total = steps.gather_members(
                item, x, labels, sizes, centers, means, merged, spreads, H, W, GH, GW, C, sxb, sxn, sxc, ssb, ssn,
                REACH, BLOCK_C, BLOCK_N, SIZED, LENGTHEN,
            )  # fmt: skip
            if (total > 0) == 0:
                gram_steps.average(
                    item, x, weights, means, H, W, GH, GW, C, sxb, sxn, sxc, REACH, BLOCK_P, BLOCK_C, BLOCK_N
                )  # fmt: skip


@dataclass
class Clustering:
    """The buffers of one clustering, all of them written when it has run."""

    labels: Tensor
    """[B, N] int64."""
    centers: Tensor | None = None
    """[B, M, C] float32, the soft ones, unless groups were asked for."""
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
    plan = make_plan(batch, channels, x.element_size(), tuple(grid), tuple(clusters), window, iters)
    n_centers = clusters[0] * clusters[1]
    wide = partial(x.new_empty, dtype=torch.float32)
    measured = temperature is None and iters > 0
    result = Clustering(labels=x.new_empty((batch, n_tokens), dtype=torch.int64))
    if members:
        result.means = x.new_empty((batch, n_centers, channels))
        result.merged = wide((batch, n_centers))
    if not (members and plan.gram):
        result.centers = wide((batch, n_centers, channels))
    if lengthen:
        result.spreads = wide((batch, n_centers))
    fixed = 1.0
    if temperature is None:
        temperature = wide((batch,))
    elif isinstance(temperature, Tensor):
        temperature = each(temperature, batch)
    else:
        temperature, fixed = None, float(temperature)
    together = TOGETHER if together is None else together
    arguments = dict(
        x=x,
        sizes=sizes,
        squared=wide((batch, n_tokens)) if measured else None,
        temperature=temperature,
        fixed=fixed,
        **vars(result),
        counter=torch.zeros((1,), dtype=torch.int32, device=x.device) if together else None,
        **dict(zip(('H', 'W', 'GH', 'GW'), (*grid, *clusters))),
        C=channels,
        **dict(zip(('sxb', 'sxn', 'sxc'), x.stride())),
        **dict(zip(('ssb', 'ssn'), (0, 0) if sizes is None else sizes.stride())),
        MEASURED=measured,
        MEMBERS=members,
        SIZED=sizes is not None,
        LENGTHEN=lengthen,
        WHOLE=plan.options['BLOCK_M'] >= n_tokens,
        LEAST=TINY,
        num_warps=WARPS,
        num_stages=STAGES,
        **plan.options,
    )
    if plan.gram:
        kernel, span = gram_kernel, dict(number=0, last=iters)
        arguments |= dict(
            products=wide((batch, n_centers, 4 * plan.options['quads'], 4 * plan.options['quads'])),
            weights=wide((batch, n_centers, plan.options['BLOCK_P'])),
            similar=wide((2, batch, n_tokens, plan.options['BLOCK_W'])),
            own=wide((batch, n_tokens)),
            B=batch,
        )
        order = ['relate', *['measure', 'median'] * measured, *['iterate'] * iters, 'nearest']
        order += ['members' if members else 'average']
    else:
        kernel, span = cluster_kernel, {}
        arguments |= dict(similar=wide((batch, n_tokens, (window // 2 * 2 + 1) ** 2)), iters=iters)
        arguments |= {f'n_{name}': plan.items[name] for name in ('pool', 'compare', 'median', 'average', 'members')}
        order = ['pool', 'measure', *['median'] * measured, *['average', 'compare'] * iters, *['members'] * members]
    if together:
        with on_device_of(x):
            kernel[(count_programs(x.device),)](**arguments, **span, STEP='all', launch_cooperative_grid=True)
        return result
    for place, step in enumerate(order):
        if step == 'iterate':
            done = order[:place].count(step)
            span = dict(number=done, last=done + 1)
        with on_device_of(x):
            kernel[(plan.items[step],)](**arguments, **span, STEP=step)
    return result


WARPS, STAGES = 4, 2
PROGRAMS_EACH = 2
"""Programs that wait for each other, on one multiprocessor: all must find room at once."""


def count_programs(device: torch.device, each: int | None = None) -> int:
    return (PROGRAMS_EACH if each is None else each) * _multiprocessors(device)


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
