"""A Swin with fewer tokens in each window, written out window by window, whoever wrote the Swin."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import spread
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class LiteralBlock:
    """What there is in a block of a Swin."""

    run: Callable
    """The block's own forward, of an image [H, W, C]."""
    window: tuple[int, int]
    shifts: tuple[bool, bool]
    """Whether it shifts down, and across."""
    qkv: Callable
    """Of the tokens of a window [N, C]: queries, keys and values, each [heads, N, D]."""
    logits: Callable
    """Of queries and keys."""
    table: Tensor
    """[heads, 2h-1, 2w-1]"""
    proj: Callable
    norm1: nn.Module
    norm2: nn.Module
    mlp: SimpleNamespace
    """fc1, act, norm, fc2"""
    post: bool
    """Norms stand at the end of branches."""
    masked: float = -100


def plain(attn_scale):
    return lambda query, key: query @ key.transpose(1, 2) * attn_scale


def cosine(logit_scale):
    def logits(query, key):
        cosines = F.cosine_similarity(query[:, :, None], key[:, None], dim=-1)
        return cosines * logit_scale.clamp(max=torch.tensor(100.0).log()).exp()

    return logits


def cosine_table(mlp, coordinates):
    return 16 * torch.sigmoid(mlp(coordinates)[0]).permute(2, 0, 1)


def plain_table(table, window):
    return table.T.unflatten(1, [2 * side - 1 for side in window])


def literal_attention(block, image, few, log_sizes):
    """Attention of one image of whole windows [H, W, C], window by window."""
    rows, columns = 2 * few[0] - 1, 2 * few[1] - 1
    table = F.interpolate(block.table[None], (rows, columns), mode='bilinear', align_corners=False)[0]
    down = torch.arange(few[0])[:, None] - torch.arange(few[0]) + few[0] - 1
    across = torch.arange(few[1])[:, None] - torch.arange(few[1]) + few[1] - 1
    bias = table[:, down[:, None, :, None], across[None, :, None, :]].flatten(3).flatten(1, 2)
    shift = [side // 2 if shifts else 0 for side, shifts in zip(few, block.shifts)]
    back = [-side for side in shift]
    rolled, sizes = image.roll(back, (0, 1)), log_sizes.roll(back, (0, 1))
    wrapped = torch.zeros(image.shape[:2])
    wrapped[image.shape[0] - shift[0] :] += 2
    wrapped[:, image.shape[1] - shift[1] :] += 1
    out = torch.zeros_like(rolled)
    for r in range(0, image.shape[0], few[0]):
        for c in range(0, image.shape[1], few[1]):
            cut = (slice(r, r + few[0]), slice(c, c + few[1]))
            region = wrapped[cut].flatten()
            query, key, value = block.qkv(rolled[cut].flatten(0, 1))
            logits = block.logits(query, key) + bias + sizes[cut].flatten()
            logits = logits + block.masked * (region[:, None] != region)
            out[cut] = block.proj((logits.softmax(-1) @ value).transpose(0, 1).flatten(1)).unflatten(0, few)
    return out.roll(shift, (0, 1))


def literal_block(block, image, few, log_sizes, apart):
    mlp = block.mlp
    if block.post:
        image = image + block.norm1(literal_attention(block, image, few, log_sizes))
        return image + block.norm2(mlp.fc2(mlp.act(mlp.fc1(image))))
    if apart is None:
        image = image + literal_attention(block, block.norm1(image), few, log_sizes)
        return image + mlp.fc2(mlp.act(mlp.fc1(block.norm2(image))))
    share = spread.shares(image, apart)
    image = image + literal_attention(block, spread.norm(block.norm1, image, share), few, log_sizes)
    return image + spread.mlp(block, image, share)


def literal_stage(blocks, image, first, reducer):
    """One image [H, W, C] through a stage whose first block is number `first` of the backbone."""
    size, few, records = image.shape[:2], reducer.stages()[0].grid, None
    for number, block in enumerate(blocks, first):
        if number == reducer.stages()[0].after:
            window = block.window
            counts = [-(-side // cell) for side, cell in zip(size, window)]
            padded = [count * cell for count, cell in zip(counts, window)]
            before = F.pad(image, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
            image = torch.zeros(counts[0] * few[0], counts[1] * few[1], image.shape[2])
            log_sizes, apart, records = torch.zeros(image.shape[:2]), torch.zeros(image.shape[:2]), []
            for r in range(counts[0]):
                for c in range(counts[1]):
                    own = tuple(slice(n * cell, n * cell + cell) for n, cell in zip((r, c), window))
                    cut = tuple(slice(n * side, n * side + side) for n, side in zip((r, c), few))
                    reduced = reducer.stages()[0].reduce(before[own].flatten(0, 1)[None], window)
                    image[cut] = reduced.tokens[0].unflatten(0, few)
                    if reducer.size_bias and reduced.sizes is not None:
                        log_sizes[cut] = reduced.sizes[0].log().unflatten(0, few)
                    if reduced.spreads is not None:
                        apart[cut] = reduced.spreads[0].unflatten(0, few)
                    records.append((own, cut, reduced.record))
            apart = None if reduced.spreads is None else apart
        image = block.run(image) if records is None else literal_block(block, image, few, log_sizes, apart)
    if records is None:
        return image
    whole = torch.zeros(*padded, image.shape[2])
    for own, cut, record in records:
        restored = reducer.stages()[0].restore(image[cut].flatten(0, 1)[None], record)[0]
        whole[own] = restored.unflatten(0, window)
    return whole[: size[0], : size[1]]


@torch.no_grad()
def literal_stages(tokens, stages, downsample, reducer):
    """What comes out of each stage for one image of tokens [H, W, C], as [H, W, C].

    Args:
        stages: lists of blocks.
        downsample: called with the stage's number and its image, before each but the first.
    """
    outputs, first = [], 0
    for number, blocks in enumerate(stages):
        tokens = literal_stage(blocks, downsample(number, tokens) if number else tokens, first, reducer)
        outputs.append(tokens)
        first += len(blocks)
    return outputs
