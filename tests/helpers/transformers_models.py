"""Hugging Face's ViTs, tiny and with random weights, and a walk through them block by block."""

import operator

import torch
import transformers
from models import randomize
from torch.nn import functional as F

# The model's class and options, prefix tokens, blocks, final norm.
KINDS = {
    'ViT': ('ViT', {}, 1, 'layers', 'layernorm'),
    'DeiT': ('DeiT', {}, 2, 'layers', 'layernorm'),
    'I-JEPA': ('IJepa', {}, 0, 'layers', 'layernorm'),
    'MSN': ('ViTMSN', {}, 1, 'layers', 'layernorm'),
    'DINOv2': ('Dinov2', {}, 1, 'encoder.layer', 'layernorm'),
    'DINOv2 with a gate': ('Dinov2', dict(use_swiglu_ffn=True), 1, 'encoder.layer', 'layernorm'),
    'registers': ('Dinov2WithRegisters', dict(num_register_tokens=3), 4, 'encoder.layer', 'layernorm'),
    'DINOv3': ('DINOv3ViT', dict(num_register_tokens=4), 5, 'model.layer', 'norm'),
    'DINOv3 with a gate': ('DINOv3ViT', dict(use_gated_mlp=True), 1, 'model.layer', 'norm'),
    'CLIP': ('CLIPVision', {}, 1, 'encoder.layers', None),
    'SigLIP': ('SiglipVision', {}, 0, 'encoder.layers', 'post_layernorm'),
    'SigLIP 2': ('Siglip2Vision', dict(num_patches=64), 0, 'encoder.layers', 'post_layernorm'),
    'DPT': ('DPT', {}, 1, 'encoder.layer', 'layernorm'),
}
SIZES = dict(hidden_size=32, num_hidden_layers=6, num_attention_heads=4, image_size=64, patch_size=8)
WIDE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def config(name, **options):
    return getattr(transformers, f'{name}Config')(**{**SIZES, 'intermediate_size': 64, **options})


def build(kind, suffix='Model', **options):
    name, settings, *_ = KINDS[kind]
    return randomize(getattr(transformers, f'{name}{suffix}')(config(name, **{**settings, **options})))


def inputs(kind, images=WIDE):
    """What a model is given for images."""
    if kind == 'SigLIP 2':
        rows, columns = images.shape[2] // 8, images.shape[3] // 8
        patches = images.unflatten(3, (columns, 8)).unflatten(2, (rows, 8)).permute(0, 2, 4, 3, 5, 1).flatten(3)
        shapes = torch.tensor([[rows, columns]] * len(images))
        mask = torch.ones(len(images), rows * columns, dtype=torch.int64)
        return dict(pixel_values=patches.flatten(1, 2), pixel_attention_mask=mask, spatial_shapes=shapes)
    interpolates = kind in ('ViT', 'DeiT', 'I-JEPA', 'MSN', 'CLIP', 'SigLIP')
    return dict(pixel_values=images) | (dict(interpolate_pos_encoding=True) if interpolates else {})


def embed(kind, model, given):
    """The first block's tokens."""
    given = {name: value for name, value in given.items() if name != 'pixel_attention_mask'}
    tokens = model.embeddings(**given)
    if kind == 'CLIP':
        return model.pre_layrnorm(tokens)
    return tokens.last_hidden_states if kind == 'DPT' else tokens


def run(kind, block, x, mask, positions):
    """A block's own forward, with a bias on the logits of keys, [B, 1, 1, N]."""
    if kind == 'DPT' and mask is not None:
        # It takes none.
        own, normed = block.attention.attention, block.layernorm_before(x)
        heads = (each(normed).unflatten(2, (4, 8)).transpose(1, 2) for each in (own.query, own.key, own.value))
        query, key, value = heads
        weights = (query @ key.transpose(2, 3) / 8**0.5 + mask).softmax(-1)
        x = x + block.attention.output.dense((weights @ value).transpose(1, 2).flatten(2))
        return x + block.output.dense(block.intermediate(block.layernorm_after(x)))
    return block(x) if kind == 'DPT' else block(x, attention_mask=mask, **positions)


@torch.no_grad()
def walk(kind, model, reducer, given=None):
    """(normed output, what comes into the first block and out of each): with hooks and replaced calls nowhere."""
    _, _, prefix, blocks, norm = KINDS[kind]
    given = inputs(kind) if given is None else given
    x, grid = embed(kind, model, given), (8, given['pixel_values'].shape[-1] // 8)
    grid = (8, 12) if kind == 'SigLIP 2' else grid
    sizes, labels, records, states = None, None, [], [x]
    rope = model.rope_embeddings(given['pixel_values']) if KINDS[kind][0] == 'DINOv3ViT' else None
    now = None if rope is None else [each[None] for each in rope]

    def whole(tokens):
        head, tokens = tokens[:, :prefix], tokens[:, prefix:]
        for stage, record in reversed(records):
            tokens = stage.restore(tokens, record)
        return torch.cat([head, tokens], dim=1)

    for index, block in enumerate(operator.attrgetter(blocks)(model)):
        for stage in reducer.stages():
            if stage.after == index:
                reduced = stage.reduce(x[:, prefix:], grid, sizes)
                x = torch.cat([x[:, :prefix], reduced.tokens], dim=1)
                labels = reduced.labels if labels is None else reduced.labels.gather(1, labels)
                if rope is not None:
                    now = [means(each, before, labels, reduced, grid) for each, before in zip(rope, now)]
                grid, sizes = reduced.grid, reduced.sizes
                records.append((stage, reduced.record))
        mask = None
        if records and reducer.size_bias and sizes is not None:
            mask = F.pad(sizes.log(), (prefix, 0))[:, None, None].to(x.dtype)
        positions = {} if rope is None else dict(position_embeddings=[each[:, None] for each in now])
        x = run(kind, block, x, mask, positions)
        states.append(whole(x))
    normed = model.get_submodule(norm) if norm else lambda tokens: tokens
    return (normed(whole(x)) if reducer.restores == 'update' else whole(normed(x))), states


def means(values, before, labels, reduced, grid):
    """Over the image's tokens, cluster by cluster; a cluster of none has the mean of its place, [B, M, D]."""
    out = torch.zeros(len(labels), reduced.tokens.shape[1], values.shape[1])
    if reduced.grid is not None:
        image = before.transpose(1, 2).unflatten(2, grid)
        out += F.adaptive_avg_pool2d(image, reduced.grid).flatten(2).transpose(1, 2)
    for sample, of_sample in enumerate(labels):
        for cluster in of_sample.unique():
            out[sample, cluster] = values[of_sample == cluster].mean(dim=0)
    return out
