"""Steps of grid clustering on products between tokens, each a function of the number of a work item.

A center is a weighted mean of the tokens of its window, so what tokens are compared with it by follows from those
weights and the products of its tokens with each other: x_i.c = sum_j w_j x_i.x_j. Channels are read for the products
alone, once for all iterations. `steps` says which tokens are at home in which cell.
"""

import triton
import triton.language as tl

from .products import add_narrow_product
from .steps import LARGE, find_window


@triton.jit
def _compare(products, weights):
    """2 x.c - |c|**2 of a window's tokens, from their products with each other and their weights in the center."""
    # A token that is no number spoils no center that has nothing of it.
    with_center = tl.sum(tl.where(weights[None, :] != 0, products * weights[None, :], 0.0), axis=1)
    return 2 * with_center - tl.sum(tl.where(weights != 0, with_center * weights, 0.0))


@triton.jit
def relate(
    item, x, products, weights, similar, own, H, W, GH, GW, C, sxb, sxn, sxc, quads,
    REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_K: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Multiplies the tokens of a center's window with each other, and compares them with the pooled center.

    An item is a center. Writes the products [B, M, 4 * quads, 4 * quads], the weights of adaptive average pooling
    [B, M, BLOCK_P], 2 x.c - |c|**2 by the center's place around the token's home [B, N, BLOCK_W], and each token's own
    square [B, N].
    """
    SIDE: tl.constexpr = 2 * REACH + 1
    center = tl.cast(item, tl.int64)
    b = center // (GH * GW)
    r, c = item % (GH * GW) // GW, item % GW
    row, column, height, width = find_window(r, c, H, W, GH, GW, REACH)
    place = tl.arange(0, BLOCK_P)
    here = place < height * width
    token_r, token_c = row + place // width, column + place % width
    token = token_r * W + token_c
    rows = x + b * sxb + token[:, None] * sxn
    found = tl.zeros([BLOCK_P, BLOCK_P], dtype=tl.float32)
    for k in tl.range(0, C, BLOCK_K, num_stages=DEPTH):
        channels = k + tl.arange(0, BLOCK_K)
        tokens = tl.load(rows + channels[None, :] * sxc, mask=here[:, None] & (channels < C)[None, :], other=0)
        found = add_narrow_product(tokens, tl.trans(tokens), found)
    pitch = 4 * quads
    at = products + center * (pitch * pitch) + place[:, None] * pitch + place[None, :]
    tl.store(at, found, mask=here[:, None] & (place < pitch)[None, :])

    top, left = r * H // GH, c * W // GW
    bottom, right = ((r + 1) * H + GH - 1) // GH, ((c + 1) * W + GW - 1) // GW
    pooled = here & (token_r >= top) & (token_r < bottom) & (token_c >= left) & (token_c < right)
    shares = tl.where(pooled, 1.0 / ((bottom - top) * (right - left)), 0.0)
    tl.store(weights + center * BLOCK_P + place, shares)
    down_by, across_by = r - token_r * GH // H, c - token_c * GW // W
    token += b * H * W
    slot = (down_by + REACH) * SIDE + across_by + REACH
    tl.store(similar + token * BLOCK_W + slot, _compare(found, shares), mask=here)
    squares = tl.sum(tl.where(place[:, None] == place[None, :], found, 0.0), axis=1)
    tl.store(own + token, squares, mask=here & (down_by == 0) & (across_by == 0))


@triton.jit
def _around(token, home_r, home_c, here, similar, GH, GW, REACH: tl.constexpr, BLOCK_W: tl.constexpr):
    """Which centers around the homes of tokens exist, and how similar those are: minus infinity where there is none."""
    SIDE: tl.constexpr = 2 * REACH + 1
    # Rows are read whole, several numbers at once; nothing was written where no center is.
    slot = tl.arange(0, BLOCK_W)
    r, c = home_r[:, None] - REACH + (slot // SIDE)[None, :], home_c[:, None] - REACH + (slot % SIDE)[None, :]
    exists = here[:, None] & (slot < SIDE * SIDE)[None, :] & (r >= 0) & (r < GH) & (c >= 0) & (c < GW)
    values = tl.load(similar + token[:, None] * BLOCK_W + slot[None, :], mask=here[:, None], other=-float('inf'))
    return exists, tl.where(exists, values, -float('inf'))


@triton.jit
def iterate(
    item, products, weights, similar, after, temperature, fixed, H, W, GH, GW, quads,
    REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Weighs a center's tokens by softmax and compares them with the center that this makes; an item is a center.

    A center whose weights underflow stays where it is.
    """
    SIDE: tl.constexpr = 2 * REACH + 1
    center = tl.cast(item, tl.int64)
    b = center // (GH * GW)
    r, c = item % (GH * GW) // GW, item % GW
    row, column, height, width = find_window(r, c, H, W, GH, GW, REACH)
    place = tl.arange(0, BLOCK_P)
    here = place < height * width
    token_r, token_c = row + place // width, column + place % width
    home_r, home_c = token_r * GH // H, token_c * GW // W
    token = b * (H * W) + token_r * W + token_c
    pitch = 4 * quads
    at = products + center * (pitch * pitch) + place[:, None] * pitch + place[None, :]
    known = tl.load(at, mask=here[:, None] & (place < pitch)[None, :], other=0)
    kept = tl.load(weights + center * BLOCK_P + place)
    if temperature is None:
        heat = fixed
    else:
        heat = tl.load(temperature + b)

    _, logits = _around(token, home_r, home_c, here, similar, GH, GW, REACH, BLOCK_W)
    best = tl.where(here, tl.max(logits, axis=1), 0.0)
    shares = tl.exp((logits - best[:, None]) / heat)
    slot = (r - home_r + REACH) * SIDE + c - home_c + REACH
    ours = tl.sum(tl.where(tl.arange(0, BLOCK_W)[None, :] == slot[:, None], shares, 0.0), axis=1)
    ours = tl.where(here, ours / tl.where(here, tl.sum(shares, axis=1), 1.0), 0.0)
    total = tl.sum(ours)
    shares = tl.where(total > 0, ours / tl.where(total > 0, total, 1.0), kept)
    tl.store(weights + center * BLOCK_P + place, shares)
    tl.store(after + token * BLOCK_W + slot, _compare(known, shares), mask=here)


@triton.jit
def find_nearest(
    item, similar, own, labels, squared, H, W, GH, GW,
    REACH: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_W: tl.constexpr, SQUARED: tl.constexpr,
):  # fmt: skip
    """The nearest center of each token [B, N] and, if asked for, its squared distance; an item is some tokens."""
    SIDE: tl.constexpr = 2 * REACH + 1
    blocks = (H * W + BLOCK_T - 1) // BLOCK_T
    place = item % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    here = place < H * W
    home_r, home_c = place // W * GH // H, place % W * GW // W
    token = tl.cast(item // blocks, tl.int64) * (H * W) + place
    exists, values = _around(token, home_r, home_c, here, similar, GH, GW, REACH, BLOCK_W)
    if SQUARED:
        best = tl.load(own + token, mask=here, other=0) - tl.max(values, axis=1)
        tl.store(squared + token, tl.where(best < 0, 0.0, best), mask=here)
    # Of what is no number every comparison is false: it counts as nearest, lest the result lead out of the grid.
    values = tl.where(values != values, float('inf'), tl.where(values < -LARGE, -LARGE, values))
    slot = tl.argmax(tl.where(exists, values, -float('inf')), axis=1)
    label = (home_r - REACH + slot // SIDE) * GW + home_c - REACH + slot % SIDE
    tl.store(labels + token, label.to(tl.int64), mask=here)


@triton.jit
def average(
    item, x, weights, centers, H, W, GH, GW, C, sxb, sxn, sxc,
    REACH: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A center [B, M, C] as the mean of its window's tokens by their weights; an item is one."""
    center = tl.cast(item, tl.int64)
    r, c = item % (GH * GW) // GW, item % GW
    row, column, height, width = find_window(r, c, H, W, GH, GW, REACH)
    channels = tl.arange(0, BLOCK_C)
    start = x + center // (GH * GW) * sxb + channels[None, :] * sxc
    mean = tl.zeros([BLOCK_C], dtype=tl.float32)
    for first in range(0, height * width, BLOCK_N):
        place = first + tl.arange(0, BLOCK_N)
        token = (row + place // width) * W + column + place % width
        shares = tl.load(weights + center * BLOCK_P + place, mask=place < height * width, other=0)
        wanted = (shares != 0)[:, None] & (channels < C)[None, :]
        tokens = tl.load(start + token[:, None] * sxn, mask=wanted, other=0)
        mean += tl.sum(tokens.to(tl.float32) * shares[:, None], axis=0)
    tl.store(centers + center * C + channels, mean.to(centers.dtype.element_ty), mask=channels < C)
