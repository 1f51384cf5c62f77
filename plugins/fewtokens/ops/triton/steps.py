"""The steps of grid clustering, each a function of the number of a work item.

A step needs all of the one before it. Where the device can, one launch does all of them, its programs waiting for each
other in between; else every step is a launch. Along an axis of `size` tokens and `cells` centers, token i is at home
in cell i * cells // size, so the tokens at home in cells [a, b) are those from ceil(a * size / cells) to, not with,
ceil(b * size / cells).
"""

import triton
import triton.language as tl

from .products import add_product, add_product_left

LARGE = tl.constexpr(3e38)


@triton.jit
def first_at_home(cell, size, cells):
    """The first token at home in a cell or, of a cell outside, the first or one past the last of all."""
    cell = tl.minimum(tl.maximum(cell, 0), cells)
    return (cell * size + cells - 1) // cells


@triton.jit
def find_window(r, c, H, W, GH, GW, REACH: tl.constexpr):
    """The rectangle of tokens that may join a center: its first row and column, its height and width."""
    row, column = first_at_home(r - REACH, H, GH), first_at_home(c - REACH, W, GW)
    return row, column, first_at_home(r + 1 + REACH, H, GH) - row, first_at_home(c + 1 + REACH, W, GW) - column


@triton.jit
def pool(
    item, x, centers, H, W, GH, GW, C, sxb, sxn, sxc,
    BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adaptive average pooling; an item is a center."""
    b = tl.cast(item // (GH * GW), tl.int64)
    m = item % (GH * GW)
    r, c = m // GW, m % GW
    top, left = r * H // GH, c * W // GW
    height = ((r + 1) * H + GH - 1) // GH - top
    width = ((c + 1) * W + GW - 1) // GW - left
    channels = tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_C], dtype=tl.float32)
    for start in range(0, height * width, BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        token = (top + place // width) * W + left + place % width
        wanted = (place < height * width)[:, None] & (channels < C)[None, :]
        tile = tl.load(x + b * sxb + token[:, None] * sxn + channels[None, :] * sxc, mask=wanted, other=0)
        total += tl.sum(tile.to(tl.float32), axis=0)
    out = centers + (b * GH * GW + m) * C + channels
    tl.store(out, total / (height * width), mask=channels < C)


@triton.jit
def compare(
    item, x, centers, similar, squared, labels, H, W, GH, GW, C, sxb, sxn, sxc, chunks,
    TILE: tl.constexpr, REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SQUARED: tl.constexpr,
):  # fmt: skip
    """Compares tokens with the centers that they may join; an item is a part of those at home in a tile of centers.

    Writes 2 x.c - |c|**2 of every such pair [B, N, window * window] by the center's place around the token's home,
    minus infinity where the grid has ended; which is the nearest [B, N]; and, if asked for, its squared distance.
    """
    SIDE: tl.constexpr = 2 * REACH + 1
    AROUND: tl.constexpr = TILE + 2 * REACH
    down, across = (GH + TILE - 1) // TILE, (GW + TILE - 1) // TILE
    b = tl.cast(item // (down * across * chunks), tl.int64)
    tile = item // chunks % (down * across)
    top, left = tile // across * TILE, tile % across * TILE
    row, column = first_at_home(top, H, GH), first_at_home(left, W, GW)
    height, width = first_at_home(top + TILE, H, GH) - row, first_at_home(left + TILE, W, GW) - column

    place = item % chunks * BLOCK_P + tl.arange(0, BLOCK_P)
    here = place < height * width
    r, c = row + place // width, column + place % width
    token = r * W + c
    near = tl.arange(0, BLOCK_Q)
    center_r, center_c = top - REACH + near // AROUND, left - REACH + near % AROUND
    exists = (near < AROUND * AROUND) & (center_r >= 0) & (center_r < GH) & (center_c >= 0) & (center_c < GW)
    center = center_r * GW + center_c

    products = tl.zeros([BLOCK_P, BLOCK_Q], dtype=tl.float32)
    lengths = tl.zeros([BLOCK_Q], dtype=tl.float32)
    own = tl.zeros([BLOCK_P], dtype=tl.float32)
    for k in range(0, C, BLOCK_K):
        channels = k + tl.arange(0, BLOCK_K)
        inside = (channels < C)[None, :]
        tokens = tl.load(
            x + b * sxb + token[:, None] * sxn + channels[None, :] * sxc, mask=here[:, None] & inside, other=0
        )
        means = tl.load(
            centers + (b * GH * GW + center)[:, None] * C + channels[None, :], mask=exists[:, None] & inside, other=0
        )
        products = add_product(tokens, tl.trans(means), products)
        lengths += tl.sum(means * means, axis=1)
        if SQUARED:
            own += tl.sum(tokens.to(tl.float32) * tokens.to(tl.float32), axis=1)

    values = 2 * products - lengths[None, :]
    values = tl.where(exists[None, :], values, -float('inf'))
    down_by, across_by = center_r[None, :] - (r * GH // H)[:, None], center_c[None, :] - (c * GW // W)[:, None]
    allowed = (down_by >= -REACH) & (down_by <= REACH) & (across_by >= -REACH) & (across_by <= REACH)
    allowed = allowed & here[:, None] & (near < AROUND * AROUND)[None, :]
    tokens_before = b * H * W
    # What follows is of centers that exist; a value that has overflowed is still above what is not there.
    joined = allowed & exists[None, :]
    at = (tokens_before + token)[:, None] * (SIDE * SIDE) + (down_by + REACH) * SIDE + across_by + REACH
    tl.store(similar + at, values, mask=allowed)
    if SQUARED:
        best = own - tl.max(tl.where(joined, values, -float('inf')), axis=1)
        tl.store(squared + tokens_before + token, tl.where(best < 0, 0.0, best), mask=here)
    # Of what is no number every comparison is false: it counts as nearest, lest the result lead out of the grid.
    values = tl.where(values != values, float('inf'), tl.where(values < -LARGE, -LARGE, values))
    nearest = tl.argmax(tl.where(joined, values, -float('inf')), axis=1)
    nearest = (top - REACH + nearest // AROUND) * GW + left - REACH + nearest % AROUND
    tl.store(labels + tokens_before + token, nearest.to(tl.int64), mask=here)


@triton.jit
def _bits(values):
    """Of numbers that are not negative, whole numbers in the same order; what is no number comes last."""
    return tl.where(values != values, 0x7FFFFFFF, values.to(tl.int32, bitcast=True) & 0x7FFFFFFF)


@triton.jit
def halve_median(item, squared, temperature, N, TINY: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Half the lower median of a sample's numbers, at least TINY; an item is a sample."""
    start = squared + tl.cast(item, tl.int64) * N
    places = tl.arange(0, BLOCK)
    values = tl.load(start + places, mask=places < N, other=float('nan'))
    bits, known = _bits(values), tl.sum((values == values).to(tl.int32))
    if not WHOLE:
        for first in range(BLOCK, N, BLOCK):
            values = tl.load(start + first + places, mask=first + places < N, other=float('nan'))
            known += tl.sum((values == values).to(tl.int32))
    rank = tl.maximum(known - 1, 0) // 2
    # Eight bits after eight: of those that begin like the median, the smallest digit that reaches its rank.
    median, digits = 0, tl.arange(0, 256)
    for step in range(4):
        counts = _count_digits(bits, median, step)
        if not WHOLE:
            for first in range(BLOCK, N, BLOCK):
                values = tl.load(start + first + places, mask=first + places < N, other=float('nan'))
                counts += _count_digits(_bits(values), median, step)
        digit = tl.min(tl.where(tl.cumsum(counts, axis=0) > rank, digits, 255))
        rank -= tl.sum(tl.where(digits < digit, counts, 0))
        median += digit << (24 - 8 * step)
    half = median.to(tl.float32, bitcast=True) / 2
    tl.store(temperature + item, tl.where(half < TINY, TINY, half))


@triton.jit
def _count_digits(bits, median, step):
    """How many numbers have which next eight bits, of those whose bits before are the median's, [256]."""
    alike = ((bits ^ median) >> (31 - 8 * step)) >> 1 == 0
    return tl.histogram((bits >> (24 - 8 * step)) & 255, 256, mask=alike)


@triton.jit
def average(
    item, x, similar, temperature, fixed, centers, H, W, GH, GW, C, sxb, sxn, sxc, chunks,
    TILE: tl.constexpr, REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Each center as the mean of its tokens, weighted by softmax; an item is some channels of a tile of centers.

    A center whose weights underflow stays where it is.
    """
    SIDE: tl.constexpr = 2 * REACH + 1
    down, across = (GH + TILE - 1) // TILE, (GW + TILE - 1) // TILE
    b = tl.cast(item // (down * across * chunks), tl.int64)
    tile = item // chunks % (down * across)
    channels = item % chunks * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (channels < C)[None, :]
    top, left = tile // across * TILE, tile % across * TILE
    row, column = first_at_home(top - REACH, H, GH), first_at_home(left - REACH, W, GW)
    height = first_at_home(top + TILE + REACH, H, GH) - row
    width = first_at_home(left + TILE + REACH, W, GW) - column

    part = tl.arange(0, BLOCK_P)
    center_r, center_c = top + part // TILE, left + part % TILE
    exists = (part < TILE * TILE) & (center_r < GH) & (center_c < GW)
    center = center_r * GW + center_c
    around = tl.arange(0, BLOCK_W)
    if temperature is None:
        heat = fixed
    else:
        heat = tl.load(temperature + b)

    sums = tl.zeros([BLOCK_P, BLOCK_K], dtype=tl.float32)
    totals = tl.zeros([BLOCK_P], dtype=tl.float32)
    for start in range(0, height * width, BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        here = place < height * width
        r, c = row + place // width, column + place % width
        token = r * W + c
        rows = similar + (b * H * W + token) * (SIDE * SIDE)
        logits = tl.load(
            rows[:, None] + around[None, :],
            mask=here[:, None] & (around < SIDE * SIDE)[None, :],
            other=-float('inf'),
        )
        best = tl.where(here, tl.max(logits, axis=1), 0.0)
        spread = tl.sum(tl.exp((logits - best[:, None]) / heat), axis=1)
        down_by, across_by = center_r[:, None] - (r * GH // H)[None, :], center_c[:, None] - (c * GW // W)[None, :]
        allowed = (down_by >= -REACH) & (down_by <= REACH) & (across_by >= -REACH) & (across_by <= REACH)
        allowed = allowed & here[None, :] & exists[:, None]
        ours = tl.load(rows[None, :] + (down_by + REACH) * SIDE + across_by + REACH, mask=allowed, other=-float('inf'))
        weights = tl.exp((ours - best[None, :]) / heat) / tl.where(here, spread, 1.0)[None, :]
        tokens = tl.load(
            x + b * sxb + token[:, None] * sxn + channels[None, :] * sxc, mask=here[:, None] & inside, other=0
        )
        sums = add_product_left(weights, tokens, sums)
        totals += tl.sum(weights, axis=1)
    at = (b * GH * GW + center)[:, None] * C + channels[None, :]
    written = exists[:, None] & inside
    kept = tl.load(centers + at, mask=written, other=0)
    moved = (totals > 0)[:, None]
    tl.store(centers + at, tl.where(moved, sums / tl.where(moved, totals[:, None], 1.0), kept), mask=written)


@triton.jit
def gather_members(
    item, x, labels, sizes, soft, means, merged, spreads, H, W, GH, GW, C, sxb, sxn, sxc, ssb, ssn,
    REACH: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, SIZED: tl.constexpr, LENGTHEN: tl.constexpr,
):  # fmt: skip
    """Each group's mean, weighted by sizes, and its size, which is returned; an item is a group.

    Without members it keeps its soft center or, where there is no table of those, is not written. With LENGTHEN the
    mean is made longer, halfway to its members' mean length, and how far they lie apart is written too: see
    `fewtokens.ops.shared_update.lengthen_means`.
    """
    b = tl.cast(item // (GH * GW), tl.int64)
    m = item % (GH * GW)
    r, c = m // GW, m % GW
    row, column, height, width = find_window(r, c, H, W, GH, GW, REACH)
    channels = tl.arange(0, BLOCK_C)
    sums = tl.zeros([BLOCK_C], dtype=tl.float32)
    total, lengths, squares = 0.0, 0.0, 0.0
    part = tl.arange(0, BLOCK_N)
    for start in range(0, height * width, 64):
        place = start + tl.arange(0, 64)
        near = (row + place // width) * W + column + place % width
        member = tl.load(labels + b * H * W + near, mask=place < height * width, other=-1) == m
        # Members are few of those that could be: only they are read.
        rank = tl.cumsum(member.to(tl.int32), axis=0) - 1
        count = tl.sum(member.to(tl.int32))
        for first in range(0, count, BLOCK_N):
            chosen = member[None, :] & (rank[None, :] == first + part[:, None])
            token = tl.sum(tl.where(chosen, near[None, :], 0), axis=1)
            here = first + part < count
            if SIZED:
                size = tl.load(sizes + b * ssb + token * ssn, mask=here, other=0).to(tl.float32)
            else:
                size = here.to(tl.float32)
            wanted = here[:, None] & (channels < C)[None, :]
            tokens = tl.load(x + b * sxb + token[:, None] * sxn + channels[None, :] * sxc, mask=wanted, other=0)
            tokens = tokens.to(tl.float32)
            sums += tl.sum(tokens * size[:, None], axis=0)
            total += tl.sum(size)
            if LENGTHEN:
                square = tl.sum(tokens * tokens, axis=1)
                lengths += tl.sum(size * tl.sqrt(square))
                squares += tl.sum(size * square)
    at = (b * GH * GW + m) * C + channels
    counted = tl.where(total > 0, total, 1.0)
    mean = sums / counted
    if LENGTHEN:
        own = tl.sum(mean * mean)
        known = (total > 0) & (own > 0)
        mean = mean * tl.where(known, tl.sqrt(lengths / counted / tl.sqrt(tl.where(known, own, 1.0))), 1.0)
        apart = (squares / counted - own) / C
        tl.store(spreads + b * GH * GW + m, tl.where(total > 0, tl.where(apart < 0, 0.0, apart), 0.0))
    written = channels < C
    if soft is None:
        written = channels < tl.where(total > 0, C, 0)
    else:
        mean = tl.where(total > 0, mean, tl.load(soft + at, mask=written, other=0))
    tl.store(means + at, mean.to(means.dtype.element_ty), mask=written)
    tl.store(merged + b * GH * GW + m, total)
    return total
