"""MaskDINO's head for Swin as its authors define it, under their names: no more than what a picture goes through.

Written from the published definitions of its modules, with plain PyTorch: a check on names and shapes as well as on
numbers. Features come finest first.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

POINTS = 4


class Perceptron(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class NormedConv(nn.Conv2d):
    """detectron2's: a norm belongs to the convolution."""

    def __init__(self, before, after, side):
        super().__init__(before, after, side, padding=side // 2, bias=False)
        self.norm = nn.GroupNorm(32, after)

    def forward(self, x):
        return self.norm(super().forward(x))


class DeformableAttention(nn.Module):
    def __init__(self, width, heads, levels):
        super().__init__()
        self.heads, self.levels = heads, levels
        self.sampling_offsets = nn.Linear(width, heads * levels * POINTS * 2)
        self.attention_weights = nn.Linear(width, heads * levels * POINTS)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(self, query, references, memory, sizes):
        """References are points [B, Q, 2] or boxes [B, Q, 4], memory is [B, N, C] of levels of some sizes."""
        batch, count, width = query.shape
        shape = batch, count, self.heads, self.levels, POINTS
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, -1).softmax(-1).view(shape)
        values = self.value_proj(memory).view(batch, -1, self.heads, width // self.heads)
        result = 0
        begin = 0
        for level, (rows, columns) in enumerate(sizes):
            own = (
                values[:, begin : begin + rows * columns]
                .permute(0, 2, 3, 1)
                .reshape(-1, width // self.heads, rows, columns)
            )
            begin += rows * columns
            if references.shape[-1] == 2:
                reach = 1 / torch.tensor([columns, rows])
            else:
                reach = references[:, :, None, None, 2:] / POINTS / 2
            places = references[:, :, None, None, :2] + offsets[:, :, :, level] * reach
            places = places.transpose(1, 2).flatten(0, 1) * 2 - 1
            found = F.grid_sample(own, places, mode='bilinear', padding_mode='zeros', align_corners=False)
            share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
            result = result + (found * share[:, None]).sum(-1)
        return self.output_proj(result.view(batch, width, count).transpose(1, 2))


class EncoderLayer(nn.Module):
    def __init__(self, width, inner, heads, levels):
        super().__init__()
        self.self_attn = DeformableAttention(width, heads, levels)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x, positions, points, sizes):
        x = self.norm1(x + self.self_attn(x + positions, points, x, sizes))
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class DecoderLayer(nn.Module):
    def __init__(self, width, inner, heads, levels):
        super().__init__()
        self.cross_attn = DeformableAttention(width, heads, levels)
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x, positions, boxes, memory, sizes):
        queries = (x + positions).transpose(0, 1)
        attended = self.self_attn(queries, queries, x.transpose(0, 1))[0].transpose(0, 1)
        x = self.norm2(x + attended)
        x = self.norm1(x + self.cross_attn(x + positions, boxes, memory, sizes))
        return self.norm3(x + self.linear2(self.linear1(x).relu()))


class PixelDecoder(nn.Module):
    def __init__(self, channels, width, inner, heads, levels, layers):
        super().__init__()
        convs = [nn.Conv2d(before, width, 1) for before in channels]
        for i in range(len(channels), levels):
            convs.append(nn.Conv2d(channels[-1] if i == len(channels) else width, width, 3, 2, 1))
        self.input_proj = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(32, width)) for conv in convs)
        self.transformer = nn.Module()
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(
            EncoderLayer(width, inner, heads, levels) for _ in range(layers)
        )
        self.transformer.level_embed = nn.Parameter(torch.randn(levels, width))
        self.mask_features = nn.Conv2d(width, width, 1)
        self.adapter_1 = NormedConv(channels[0], width, 1)
        self.layer_1 = NormedConv(width, width, 3)

    def forward(self, features):
        maps = [projection(x) for projection, x in zip(self.input_proj, features)]
        for i in range(len(features), len(self.input_proj)):
            maps.append(self.input_proj[i](features[-1] if i == len(features) else maps[-1]))
        sizes = [x.shape[2:] for x in maps]
        x = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        positions = torch.cat(
            [sines_of(size, x.shape[2]) + level for size, level in zip(sizes, self.transformer.level_embed)]
        )
        points = torch.cat([centers_of(size) for size in sizes]).expand(len(x), -1, -1)
        for layer in self.transformer.encoder.layers:
            x = layer(x, positions, points, sizes)
        parts = x.split([rows * columns for rows, columns in sizes], 1)
        maps = [part.transpose(1, 2).reshape(len(x), -1, *size) for part, size in zip(parts, sizes)]
        finest = self.adapter_1(features[0])
        finest = finest + F.interpolate(maps[0], finest.shape[2:], mode='bilinear', align_corners=False)
        return self.mask_features(self.layer_1(finest).relu()), maps


def centers_of(size):
    """Of all places of a map, x and y from 0 to 1, [N, 2]."""
    rows, columns = size
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    return torch.stack([(x + 0.5) / columns, (y + 0.5) / rows], -1).view(-1, 2)


def waves(x, width):
    """Sines and cosines [..., width] of numbers from 0 to 1."""
    angles = 2 * math.pi * x[..., None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def sines_of(size, width):
    """Positions of all places of a map, [N, width]: they are counted from 1, and y comes first."""
    rows, columns = size
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    places = (y + 1) / (rows + 1e-6), (x + 1) / (columns + 1e-6)
    return torch.cat([waves(place, width // 2) for place in places], -1).flatten(0, 1)


def logits_of(x, least=1e-5):
    return torch.log(x.clamp(least, 1) / (1 - x).clamp(least, 1))


class Predictor(nn.Module):
    def __init__(self, classes, width, inner, heads, levels, layers, queries, boxes_from_masks):
        super().__init__()
        self.queries, self.boxes_from_masks = queries, boxes_from_masks
        self.enc_output, self.enc_output_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, classes)
        self.label_enc = nn.Embedding(classes, width)
        self.mask_embed = Perceptron(width, width, width, width)
        self.decoder_norm = nn.LayerNorm(width)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(DecoderLayer(width, inner, heads, levels) for _ in range(layers))
        self.decoder.norm = self.decoder_norm
        self.decoder.ref_point_head = Perceptron(2 * width, width, width)
        self._bbox_embed = Perceptron(width, width, width, 4)
        self.bbox_embed = self.decoder.bbox_embed = nn.ModuleList([self._bbox_embed] * layers)

    def forward(self, mask_features, maps):
        maps = maps[::-1]
        sizes = [x.shape[2:] for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        boxes = torch.cat(
            [
                torch.cat([centers, torch.full_like(centers, 0.05 * 2**level)], 1)
                for level, centers in enumerate(centers_of(size) for size in sizes)
            ]
        )
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(1)
        states = self.enc_output_norm(self.enc_output(memory * inside[:, None]))
        proposals = torch.where(inside[:, None], torch.log(boxes / (1 - boxes)), math.inf)
        boxes = (self._bbox_embed(states) + proposals).sigmoid()
        best = self.class_embed(states).max(-1)[0].topk(self.queries, 1)[1]
        x = torch.stack([state[places] for state, places in zip(states, best)])
        boxes = torch.stack([box[places] for box, places in zip(boxes, best)])
        if self.boxes_from_masks:
            boxes = boxes_of(self.answer(x, mask_features)[1] > 0)
        for layer in self.decoder.layers:
            sines = torch.cat([waves(boxes[..., i], x.shape[2] // 2) for i in (1, 0, 2, 3)], -1)
            x = layer(x, self.decoder.ref_point_head(sines), boxes, memory, sizes)
            given = (self._bbox_embed(self.decoder_norm(x)) + logits_of(boxes)).sigmoid()
            boxes = (self._bbox_embed(x) + logits_of(boxes)).sigmoid()
        return *self.answer(self.decoder_norm(x), mask_features), given

    def answer(self, x, mask_features):
        x = self.decoder_norm(x)
        return self.class_embed(x), torch.einsum('bqc,bchw->bqhw', self.mask_embed(x), mask_features)


def boxes_of(masks):
    """Centers and sizes, from 0 to 1, of masks [B, Q, h, w]: the last pixel belongs to them."""
    rows, columns = masks.shape[2:]
    boxes = torch.zeros(*masks.shape[:2], 4)
    for box, mask in zip(boxes.view(-1, 4), masks.flatten(0, 1)):
        if mask.any():
            y, x = mask.nonzero().T
            left, right, top, bottom = x.min(), x.max() + 1, y.min(), y.max() + 1
            sides = (right - left) / columns, (bottom - top) / rows
            box[:] = torch.tensor([(left + right) / 2 / columns, (top + bottom) / 2 / rows, *sides])
    return boxes


class PublishedHead(nn.Module):
    """Logits of classes and masks and boxes, of a backbone's features."""

    def __init__(
        self,
        channels,
        classes,
        width=256,
        inner=2048,
        heads=8,
        levels=5,
        encoder_layers=6,
        decoder_layers=9,
        queries=300,
        boxes_from_masks=False,
    ):
        super().__init__()
        shape = width, inner, heads, levels
        self.pixel_decoder = PixelDecoder(channels, *shape, encoder_layers)
        self.predictor = Predictor(classes, *shape, decoder_layers, queries, boxes_from_masks)

    def forward(self, features):
        return self.predictor(*self.pixel_decoder(features))
