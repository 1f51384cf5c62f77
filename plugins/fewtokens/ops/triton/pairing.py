"""Rounds of bipartite matching: every second token offers itself to the others, and the best pairs merge.

A round has three steps, each a function of the number of a work item, which need all of the one before. Where the
device can, one launch does all rounds, its programs waiting for each other in between; else every step is a launch.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import clustering
from .clustering import wait_for_all
from .launching import on_device_of
from .products import add_narrow_product

LOWEST = tl.constexpr(-(2**31))
HIGHEST = tl.constexpr(2**31 - 1)
TINY = tl.constexpr(1.1754943508222875e-38)


@triton.jit
def offer(
    item, x, sizes, keys, n, stride, prefix, C, sxb, sxn, sxc, ssb, ssn,
    WARD: tl.constexpr, SIZED: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compares tokens of even index with those of odd index; an item is a block of pairs.

    Keeps for each of even index the best key [B, stride], which says how well a pair suits, then which: of equally good
    ones the first. A key is above 0.
    """
    down, across = ((n + 1) // 2 + BLOCK - 1) // BLOCK, (n // 2 + BLOCK - 1) // BLOCK
    b = tl.cast(item // (down * across), tl.int64)
    even = item // across % down * BLOCK + tl.arange(0, BLOCK)
    odd = item % across * BLOCK + tl.arange(0, BLOCK)
    offering = (even < (n + 1) // 2) & (2 * even >= prefix)
    taking = (odd < n // 2) & (2 * odd + 1 >= prefix)
    products = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    of_even, of_odd = tl.zeros([BLOCK], dtype=tl.float32), tl.zeros([BLOCK], dtype=tl.float32)
    for k in range(0, C, BLOCK_K):
        channels = k + tl.arange(0, BLOCK_K)[None, :]
        start = x + b * sxb + channels * sxc
        evens = tl.load(start + 2 * even[:, None] * sxn, mask=offering[:, None] & (channels < C), other=0)
        odds = tl.load(start + (2 * odd[:, None] + 1) * sxn, mask=taking[:, None] & (channels < C), other=0)
        products = add_narrow_product(evens, tl.trans(odds), products)
        of_even += tl.sum(evens.to(tl.float32) * evens.to(tl.float32), axis=1)
        of_odd += tl.sum(odds.to(tl.float32) * odds.to(tl.float32), axis=1)
    if WARD:
        cost = of_even[:, None] + of_odd[None, :] - 2 * products
        if SIZED:
            one = tl.load(sizes + b * ssb + 2 * even * ssn, mask=offering, other=1).to(tl.float32)
            other = tl.load(sizes + b * ssb + (2 * odd + 1) * ssn, mask=taking, other=1).to(tl.float32)
            cost /= 1 / tl.where(one < TINY, TINY, one)[:, None] + 1 / tl.where(other < TINY, TINY, other)[None, :]
    else:
        one, other = tl.sqrt(of_even), tl.sqrt(of_odd)
        cost = -products / (tl.where(one < 1e-12, 1e-12, one)[:, None] * tl.where(other < 1e-12, 1e-12, other)[None, :])
        cost = tl.where(cost != cost, 2.0, cost)
    # Whole numbers in the same order; what is no number comes first, as in torch.min.
    bits = cost.to(tl.int32, bitcast=True)
    order = tl.where(cost != cost, LOWEST, tl.where(bits < 0, bits ^ HIGHEST, bits))
    order = tl.where(taking[None, :], order, HIGHEST)
    least, target = tl.min(order, axis=1), tl.argmin(order, axis=1)
    target += item % across * BLOCK
    key = ((HIGHEST - least.to(tl.int64)) << 31) + (HIGHEST - target)
    tl.atomic_max(keys + b * stride + even, key, mask=offering & (least < HIGHEST), sem='relaxed')


@triton.jit
def choose(item, keys, joined, sources, goals, n, away, N, stride, BLOCK: tl.constexpr):
    """Chooses the best pairs, as many as are to go away; an item is a sample.

    Writes each token's group [B, N]; and, of those of even index, first the ones that stay and then the ones that go
    away, which each is and its group [B, stride].
    """
    b = tl.cast(item, tl.int64)
    even = tl.arange(0, BLOCK)
    here = even < (n + 1) // 2
    key = tl.load(keys + b * stride + even, mask=here, other=0)
    order = ((key >> 31) + LOWEST).to(tl.int32)
    # The last one that is chosen, eight bits after eight: of those that begin alike, the largest that enough reach.
    bits = order.to(tl.uint32, bitcast=True) ^ 0x80000000
    digits, equal, room = tl.arange(0, 256), here, away
    above = order != order
    for step in range(4):
        digit = ((bits >> (24 - 8 * step)) & 255).to(tl.int32)
        counts = tl.histogram(digit, 256, mask=equal)
        reached = tl.cumsum(counts, axis=0, reverse=True) >= room
        last = tl.max(tl.where(reached, digits, 0))
        room -= tl.sum(tl.where(digits > last, counts, 0))
        above = above | (equal & (digit > last))
        equal = equal & (digit == last)
    chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= room))
    kept = (n + 1) // 2 - away
    place = tl.cumsum((here & (chosen == 0)).to(tl.int32), axis=0) - 1
    target = HIGHEST - (key & HIGHEST).to(tl.int32)
    group = tl.where(chosen, kept + target, place)
    tl.store(joined + b * N + 2 * even, group, mask=here)
    tl.store(joined + b * N + 2 * even + 1, kept + even, mask=even < n // 2)
    at = b * stride + tl.where(chosen, kept + tl.cumsum(chosen.to(tl.int32), axis=0) - 1, place)
    tl.store(sources + at, even, mask=here)
    tl.store(goals + at, group, mask=here)


@triton.jit
def join(
    item, x, sizes, carried, sources, goals, out, rounded, carried_out, means, merged, spreads, n, away, last,
    B, N, rows, stride, C, sxb, sxn, sxc, ssb, ssn,
    FIRST: tl.constexpr, SIZED: tl.constexpr, LENGTHEN: tl.constexpr, MORE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Each group's mean, weighted by sizes; an item is a group.

    Beside it go on its size and, with LENGTHEN, its members' lengths and squares, added up. The last round's means are
    made longer by those, see `fewtokens.ops.shared_update.lengthen_means`.
    """
    left = n - away
    b, group = tl.cast(item // left, tl.int64), item % left
    kept = (n + 1) // 2 - away
    of_sample, of_table = b * stride, B.to(tl.int64) * N
    own = tl.load(sources + of_sample + group, mask=group < kept, other=0)
    own = tl.where(group < kept, 2 * own, 2 * (group - kept) + 1)
    channels = tl.arange(0, BLOCK_C)
    start = x + b * sxb
    token = tl.load(start + own * sxn + channels * sxc, mask=channels < C, other=0).to(tl.float32)
    total = tl.load(sizes + b * ssb + own * ssn).to(tl.float32) if SIZED else 1.0
    lengths, squares = 0.0, 0.0
    if LENGTHEN:
        if FIRST:
            square = tl.sum(token * token)
            lengths, squares = total * tl.sqrt(square), total * square
        else:
            lengths = tl.load(carried + of_table + b * N + own)
            squares = tl.load(carried + 2 * of_table + b * N + own)
    sums = token * total
    # Those that stay have no one who joins them.
    goers = tl.where(group < kept, 0, away)
    for far in range(0, goers, BLOCK_G):
        near = far + tl.arange(0, BLOCK_G)
        coming = tl.load(goals + of_sample + kept + near, mask=near < goers, other=-1) == group
        reached = -1
        for _ in range(tl.sum(coming.to(tl.int32))):
            reached = tl.min(tl.where(coming & (near > reached), near, HIGHEST))
            even = 2 * tl.load(sources + of_sample + kept + reached)
            size = tl.load(sizes + b * ssb + even * ssn).to(tl.float32) if SIZED else 1.0
            member = tl.load(start + even * sxn + channels * sxc, mask=channels < C, other=0).to(tl.float32)
            sums += member * size
            total += size
            if LENGTHEN:
                if FIRST:
                    square = tl.sum(member * member)
                    lengths += size * tl.sqrt(square)
                    squares += size * square
                else:
                    theirs = carried + of_table + b * N + even
                    lengths += tl.load(theirs)
                    squares += tl.load(theirs + of_table)
    counted = tl.where(total > 0, total, 1.0)
    mean = tl.where(total > 0, sums / counted, 0.0)
    if last:
        if LENGTHEN:
            square = tl.sum(mean * mean)
            known = (total > 0) & (square > 0)
            longer = tl.sqrt(lengths / counted / tl.sqrt(tl.where(known, square, 1.0)))
            apart = (squares / counted - square) / C
            tl.store(spreads + b * left + group, tl.where(total > 0, tl.where(apart < 0, 0.0, apart), 0.0))
            mean = mean * tl.where(known, longer, 1.0)
        target = means + (b * left + group) * C + channels
        tl.store(target, mean.to(means.dtype.element_ty), mask=channels < C)
        tl.store(merged + b * left + group, total)
    elif MORE:
        at = (b * rows + group) * C + channels
        tl.store(out + at, mean, mask=channels < C)
        tl.store(rounded + at, mean.to(rounded.dtype.element_ty), mask=channels < C)
        ours = carried_out + b * N + group
        tl.store(ours, total)
        if LENGTHEN:
            tl.store(ours + of_table, lengths)
            tl.store(ours + 2 * of_table, squares)


@triton.jit
def relabel(item, joined, labels, N, FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """Each token's group after this round; an item is some of a sample's tokens."""
    blocks = (N + BLOCK - 1) // BLOCK
    before = tl.cast(item // blocks, tl.int64) * N
    token = item % blocks * BLOCK + tl.arange(0, BLOCK)
    if FIRST:
        label = tl.load(joined + before + token, mask=token < N, other=0).to(tl.int64)
    else:
        label = tl.load(labels + before + token, mask=token < N, other=0)
        label = tl.load(joined + before + label, mask=token < N, other=0).to(tl.int64)
    tl.store(labels + before + token, label, mask=token < N)


@triton.jit
def run_round(
    x, metric, sizes, keys, joined, sources, goals, work, rounded, carried, labels, means, merged, spreads, counter,
    arrivals, number, n, away, last, B, N, rows, prefix, C, D, sxb, sxn, sxc, smb, smn, smc, ssb, ssn,
    STEP: tl.constexpr, FIRST: tl.constexpr, MORE: tl.constexpr, WARD: tl.constexpr, SIZED: tl.constexpr,
    MEMBERS: tl.constexpr, LENGTHEN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """One step of a round, or with STEP 'all' all three; returns how often programs have arrived by then."""
    first, programs = tl.program_id(0), tl.num_programs(0)
    stride = (N + 1) // 2
    # Two tables of what rounds make: one is read while the other is written.
    of_work, of_carried = B.to(tl.int64) * rows * C, 3 * B.to(tl.int64) * N
    into = number % 2
    out = work + into * of_work if MORE else work
    rounded_out = rounded + into * of_work if MORE else rounded
    carried_out = carried + into * of_carried if MORE else carried
    if not FIRST:
        x = work + (1 - into) * of_work
        carried = carried + (1 - into) * of_carried
        sizes = carried
        metric, D = rounded + (1 - into) * of_work, C
        sxb, sxn, sxc, smb, smn, smc, ssb, ssn = rows * C, C, 1, rows * C, C, 1, N, 1
    keys += number * B.to(tl.int64) * stride
    if STEP == 'offer' or STEP == 'all':
        blocks = (((n + 1) // 2 + BLOCK - 1) // BLOCK) * ((n // 2 + BLOCK - 1) // BLOCK)
        for item in range(first, B * blocks, programs):
            offer(
                item, metric, sizes, keys, n, stride, prefix, D, smb, smn, smc, ssb, ssn,
                WARD, SIZED or not FIRST, BLOCK, BLOCK_K,
            )  # fmt: skip
    if STEP == 'all':
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'choose' or STEP == 'all':
        for item in range(first, B, programs):
            choose(item, keys, joined, sources, goals, n, away, N, stride, BLOCK_E)
    if STEP == 'all':
        arrivals += programs
        wait_for_all(counter, arrivals)
    if STEP == 'join' or STEP == 'all':
        if MEMBERS:
            for item in range(first, B * (n - away), programs):
                join(
                    item, x, sizes, carried, sources, goals, out, rounded_out, carried_out, means, merged, spreads, n,
                    away, last, B, N, rows, stride, C, sxb, sxn, sxc, ssb, ssn,
                    FIRST, SIZED or not FIRST, LENGTHEN, MORE, BLOCK_C, BLOCK_G,
                )  # fmt: skip
        for item in range(first, B * ((N + BLOCK_L - 1) // BLOCK_L), programs):
            relabel(item, joined, labels, N, FIRST, BLOCK_L)
    return arrivals


# These vary with how many tokens there are: the code is the same whatever divides them.
PLAIN = ['B', 'N', 'M', 'rows', 'part', 'prefix', 'number', 'rounds', 'n', 'away', 'ssb', 'ssn']


@triton.jit(do_not_specialize=PLAIN)
def pair_kernel(
    x, metric, sizes, keys, joined, sources, goals, work, rounded, carried, labels, means, merged, spreads,
    number, rounds, n, away, B, N, M, rows, part, prefix, C, D, sxb, sxn, sxc, smb, smn, smc, ssb, ssn,
    STEP: tl.constexpr, FIRST: tl.constexpr, MORE: tl.constexpr, WARD: tl.constexpr, SIZED: tl.constexpr,
    MEMBERS: tl.constexpr, LENGTHEN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """One step of one round, or with STEP 'all' all rounds."""
    counter = keys + rounds * B.to(tl.int64) * ((N + 1) // 2)
    arrivals = run_round(
        x, metric, sizes, keys, joined, sources, goals, work, rounded, carried, labels, means, merged, spreads, counter,
        0, number, n, away, number + 1 == rounds, B, N, rows, prefix, C, D, sxb, sxn, sxc, smb, smn, smc, ssb, ssn,
        STEP, FIRST, MORE, WARD, SIZED, MEMBERS, LENGTHEN, BLOCK, BLOCK_K, BLOCK_E, BLOCK_C, BLOCK_G, BLOCK_L,
    )  # fmt: skip
    if STEP == 'all' and MORE:
        for later in range(1, rounds):
            n -= away
            away = tl.minimum(n - M, (n + part - 1) // part)
            arrivals += tl.num_programs(0)
            wait_for_all(counter, arrivals)
            arrivals = run_round(
                x, metric, sizes, keys, joined, sources, goals, work, rounded, carried, labels, means, merged, spreads,
                counter, arrivals, later, n, away, later + 1 == rounds, B, N, rows, prefix, C, D, sxb, sxn, sxc, smb,
                smn, smc, ssb, ssn, STEP, False, MORE, WARD, SIZED, MEMBERS, LENGTHEN, BLOCK, BLOCK_K, BLOCK_E,
                BLOCK_C, BLOCK_G, BLOCK_L,
            )  # fmt: skip


@dataclass
class Pairing:
    """What rounds of matching give, all of it written when they have run."""

    labels: Tensor
    """[B, N] int64."""
    means: Tensor | None = None
    """[B, M, C] in the tokens' type, if groups were asked for."""
    merged: Tensor | None = None
    """[B, M] float32."""
    spreads: Tensor | None = None
    """[B, M] float32, if means were to be lengthened."""


def run(
    x: Tensor,
    n_groups: int,
    part: int,
    metric: Tensor | None = None,
    sizes: Tensor | None = None,
    num_prefix_tokens: int = 0,
    members: bool = True,
    lengthen: bool = False,
    together: bool | None = None,
) -> Pairing:
    """Merges tokens [B, N, C] of a CUDA device down to `n_groups`, fewer than they are, one in `part` a round at most.

    Args:
        metric: what tokens are compared by in one round, by cosine, [B, N, D]; None compares themselves by Ward's
            criterion in as many rounds as it takes.
        sizes: of the tokens [B, N].
        num_prefix_tokens: neither merged away nor merged into, of one round.
        members: whether to gather the means of each label's tokens.
        lengthen: whether to lengthen those means, and to measure how far the members lie apart.
        together: whether one launch does all rounds; None: `clustering.TOGETHER`.
    """
    batch, n_tokens, channels = x.shape
    rounds, left = [], n_tokens
    while left > n_groups:
        rounds.append((left, min(left - n_groups, -(-left // part))))
        left -= rounds[-1][1]
    evens, rows = -(-n_tokens // 2), n_tokens - rounds[0][1]
    new = x.new_empty
    result = Pairing(labels=new((batch, n_tokens), dtype=torch.int64))
    if members:
        result.means = new((batch, n_groups, channels))
        result.merged = new((batch, n_groups), dtype=torch.float32)
    if lengthen:
        result.spreads = new((batch, n_groups), dtype=torch.float32)
    together = clustering.TOGETHER if together is None else together
    several = len(rounds) > 1
    whole = dict(dtype=torch.int32)
    block_c = triton.next_power_of_2(channels)
    compared = x if metric is None else metric
    many = batch * evens >= 2048
    if many:
        tiles = dict(BLOCK=128, BLOCK_K=32, num_warps=8, num_stages=3)
    else:
        tiles = dict(BLOCK=64 if evens > 512 else 32, BLOCK_K=64, num_warps=4, num_stages=2)
    arguments = dict(
        x=x,
        metric=compared,
        sizes=sizes,
        # The last one counts programs that wait.
        keys=torch.zeros(len(rounds) * batch * evens + 1, dtype=torch.int64, device=x.device),
        joined=new((batch, n_tokens), **whole),
        sources=new((batch, evens), **whole),
        goals=new((batch, evens), **whole),
        work=new((2, batch, rows, channels), dtype=torch.float32) if several else None,
        # Means are compared as rounded as tokens are.
        rounded=new((2, batch, rows, channels)) if several else None,
        carried=new((2, 3, batch, n_tokens), dtype=torch.float32) if several else None,
        labels=result.labels,
        means=result.means,
        merged=result.merged,
        spreads=result.spreads,
        rounds=len(rounds),
        **dict(B=batch, N=n_tokens, M=n_groups, rows=rows, part=part, prefix=num_prefix_tokens),
        **dict(C=channels, D=compared.shape[2]),
        **dict(zip(('sxb', 'sxn', 'sxc'), x.stride())),
        **dict(zip(('smb', 'smn', 'smc'), compared.stride())),
        **dict(zip(('ssb', 'ssn'), (0, 0) if sizes is None else sizes.stride())),
        MORE=several,
        WARD=metric is None,
        SIZED=sizes is not None,
        MEMBERS=members,
        LENGTHEN=lengthen,
        BLOCK_E=triton.next_power_of_2(evens),
        BLOCK_C=block_c,
        BLOCK_G=min(max(triton.next_power_of_2(rounds[0][1]), 16), 1024),
        BLOCK_L=1024,
        **tiles,
    )
    if together:
        n, away = rounds[0]
        programs = clustering.count_programs(x.device, 1 if many else 2)
        with on_device_of(x):
            pair_kernel[(programs,)](
                **arguments, number=0, n=n, away=away, STEP='all', FIRST=True, launch_cooperative_grid=True
            )
        return result
    for number, (n, away) in enumerate(rounds):
        halves = (n + 1) // 2, n // 2
        pairs = [-(-half // arguments['BLOCK']) for half in halves]
        items = dict(offer=batch * pairs[0] * pairs[1], choose=batch, join=batch * (n - away))
        for step, count in items.items():
            with on_device_of(x):
                pair_kernel[(count,)](**arguments, number=number, n=n, away=away, STEP=step, FIRST=number == 0)
    return result
