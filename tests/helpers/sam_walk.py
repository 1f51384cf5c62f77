"""SAM's blocks over clusters of windows, written out: the oracle of timm's and Hugging Face's hosts."""

from dataclasses import dataclass
from types import SimpleNamespace

import spread
import timm
import torch
from torch import nn
from torch.nn import functional as F


def positions(table, real, padded, clusters):
    """[clusters, clusters, D]: entries of a table of relative positions, in the direction of one side."""
    table = table.T[None]
    if real != padded:
        table = F.interpolate(table, 2 * real - 1, mode='linear')
        table = torch.cat([table[..., :1]] * (padded - real) + [table] + [table[..., -1:]] * (padded - real), dim=-1)
    table = F.interpolate(table, 2 * clusters - 1, mode='linear')[0].T
    return torch.stack([torch.stack([table[q - k + clusters - 1] for k in range(clusters)]) for q in range(clusters)])


def attention(attn, x, grid, tables, log_sizes, rotary):
    """Of tokens on a grid [H*W, C]."""
    query, key, value = attn.qkv(x).unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
    query, key = attn.q_norm(query), attn.k_norm(key)
    logits = query @ key.transpose(1, 2) * attn.scale + log_sizes
    if attn.rope is not None:
        query, key = (timm.layers.apply_rot_embed_cat(each, rotary) for each in (query, key))
        logits = query @ key.transpose(1, 2) * attn.scale + log_sizes
    if attn.use_rel_pos:
        on_grid = query.unflatten(1, grid)
        for row in range(grid[0]):
            for column in range(grid[1]):
                one = on_grid[:, row, column]
                bias = (one @ tables[0][row].T)[:, :, None] + (one @ tables[1][column].T)[:, None]
                logits[:, row * grid[1] + column] += bias.flatten(1)
    return attn.proj((logits.softmax(-1) @ value).transpose(0, 1).flatten(1))


@dataclass
class Clusters:
    """Of one image, on the grid of all windows' clusters [H, W]."""

    size: tuple
    """Of the image in tokens, and `padded` to whole windows."""
    padded: tuple
    cell: tuple
    """Tokens of a window, and `few` clusters."""
    few: tuple
    tokens: torch.Tensor
    real: torch.Tensor
    """What part of a cluster's members is in the image."""
    sizes: torch.Tensor | None
    apart: torch.Tensor | None
    rotary: dict
    """Positions for blocks that attend within windows (True) and for others."""
    records: list

    def windows(self):
        for r in range(self.padded[0] // self.cell[0]):
            for c in range(self.padded[1] // self.cell[1]):
                yield [tuple(slice(n * side, n * side + side) for n, side in zip((r, c), sides))
                       for sides in (self.cell, self.few)]  # fmt: skip

    def restore(self, stage, image):
        whole = torch.zeros(*self.padded, image.shape[2])
        for own, cut, record in self.records:
            restored = stage.restore(image[cut].flatten(0, 1)[None], record)[0]
            whole[own] = restored.unflatten(0, self.cell)
        return whole[: self.size[0], : self.size[1]]


def means(values, labels, few):
    """Of a window's tokens [h, w, C], by cluster; a cluster of none has the mean of its place."""
    place = F.adaptive_avg_pool2d(values.permute(2, 0, 1), few).flatten(1).T
    flat = values.flatten(0, 1)
    return torch.stack([
        flat[labels == n].mean(0) if (labels == n).any() else place[n] for n in range(few[0] * few[1])
    ]).unflatten(0, few)  # fmt: skip


def cluster(stage, x, cell, rope_window, rope_global):
    """One image's tokens [H, W, C], window by window."""
    size, few = x.shape[:2], stage.grid
    counts = [-(-side // one) for side, one in zip(size, cell)]
    padded = tuple(count * one for count, one in zip(counts, cell))
    beyond = (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0])
    extent = [count * side for count, side in zip(counts, few)]
    made = Clusters(size, padded, cell, few, *[torch.zeros(*extent, *c) for c in [(x.shape[2],), (), (), ()]], {}, [])
    before, inside = F.pad(x, beyond), F.pad(torch.ones(*size, 1), beyond)
    made.rotary = {of: torch.zeros(*extent, 16) for of in (True, False)}
    for own, cut in made.windows():
        reduced = stage.reduce(before[own].flatten(0, 1)[None], cell)
        labels = reduced.labels[0]
        made.tokens[cut] = reduced.tokens[0].unflatten(0, few)
        made.real[cut] = means(inside[own], labels, few)[..., 0]
        if reduced.sizes is not None:
            made.sizes[cut] = reduced.sizes[0].unflatten(0, few)
        if reduced.spreads is not None:
            made.apart[cut] = reduced.spreads[0].unflatten(0, few)
        if rope_window is not None:
            made.rotary[True][cut] = means(rope_window.unflatten(0, cell), labels, few)
        if rope_global is not None:
            whole = means(F.pad(rope_global.unflatten(0, size), beyond)[own], labels, few)
            made.rotary[False][cut] = whole / made.real[cut][..., None].clamp_min(1e-9)
        made.records.append((own, cut, reduced.record))
    made.sizes = None if reduced.sizes is None else made.sizes
    made.apart = None if reduced.spreads is None else made.apart
    return made


def literal_block(block, image, of, size_bias):
    """One image of clusters [H, W, C] through a block."""
    extent, few, attn, out = image.shape[:2], of.few, block.attn, torch.zeros_like(image)
    counted = size_bias and of.sizes is not None
    share = None if of.apart is None else spread.shares(image, of.apart)
    normed = block.norm1(image) if share is None else spread.norm(block.norm1, image, share)
    tables, windowed = (attn.rel_pos_h, attn.rel_pos_w) if attn.use_rel_pos else (), bool(block.window_size)
    rotary = of.rotary[windowed]
    if windowed:
        normed = normed * (of.real > 0)[..., None]
        sides = [positions(table, cell, cell, n) for table, cell, n in zip(tables, of.cell, few)]
        for _, cut in of.windows():
            bias = of.sizes[cut].flatten().log() if counted else torch.zeros(())
            attended = attention(attn, normed[cut].flatten(0, 1), few, sides, bias, rotary[cut].flatten(0, 1))
            out[cut] = attended.unflatten(0, few)
    else:
        sides = [positions(*each) for each in zip(tables, of.size, of.padded, extent)]
        bias = ((of.sizes * of.real) if counted else (of.real > 0)).flatten().log()
        out = attention(attn, normed.flatten(0, 1), extent, sides, bias, rotary.flatten(0, 1)).unflatten(0, extent)
    image = image + block.ls1(out)
    return image + block.ls2(block.mlp(block.norm2(image)) if share is None else spread.mlp(block, image, share))


@torch.no_grad()
def walk(blocks, x, cell, ropes, reducer):
    """The tokens after every block for one image [H, W, C], whole.

    Args:
        blocks: with the names of timm's.
        x: what comes into the first.
        cell: tokens of a window.
        ropes: rotary positions of a window and of the image, or None.
    """
    (stage,) = reducer.with_defaults(dict(iters=5, k=20, temperature=100.0)).stages()
    outputs, of = [], None
    for index, block in enumerate(blocks):
        if index == stage.after:
            of = cluster(stage, x, cell, *ropes)
            x = of.tokens
        x = block(x[None])[0] if of is None else literal_block(block, x, of, reducer.size_bias)
        outputs.append(x if of is None else of.restore(stage, x))
    return outputs


class AsTimm(nn.Module):
    """A block of Hugging Face's under the names of timm's."""

    def __init__(self, block, linear=('lin1', 'lin2'), activation='act'):
        super().__init__()
        self.block, self.window_size = block, block.window_size
        self.norm1, self.norm2 = block.layer_norm1, block.layer_norm2
        attn, same = block.attn, nn.Identity()
        positions = getattr(attn, 'use_rel_pos', False)
        tables = dict(rel_pos_h=attn.rel_pos_h, rel_pos_w=attn.rel_pos_w) if positions else {}
        self.attn = SimpleNamespace(
            qkv=attn.qkv, num_heads=attn.num_attention_heads, q_norm=same, k_norm=same, scale=attn.scale, rope=None,
            use_rel_pos=positions, proj=attn.proj, **tables,
        )  # fmt: skip
        self.ls1 = self.ls2 = same
        self.mlp = block.mlp
        self.mlp.fc1, self.mlp.fc2 = (getattr(block.mlp, name) for name in linear)
        self.mlp.act, self.mlp.norm = getattr(block.mlp, activation), same

    def forward(self, x):
        return self.block(x)
