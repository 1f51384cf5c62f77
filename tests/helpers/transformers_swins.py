"""Hugging Face's Swins, tiny and with random weights, and what a literal form needs of their blocks."""

from types import SimpleNamespace

import torch
import transformers
from models import randomize
from swin_literal import LiteralBlock, cosine, cosine_table, literal_stages, plain, plain_table
from transformers.models.maskformer.modeling_maskformer_swin import MaskFormerSwinBackbone, MaskFormerSwinModel

KINDS = {
    'v1': transformers.SwinModel,
    'v1 backbone': transformers.SwinBackbone,
    'v2': transformers.Swinv2Model,
    'v2 backbone': transformers.Swinv2Backbone,
    'Donut': transformers.DonutSwinModel,
    'MaskFormer': MaskFormerSwinModel,
    'MaskFormer backbone': MaskFormerSwinBackbone,
}
SIZES = dict(image_size=64, patch_size=4, embed_dim=8, depths=(2, 4, 2), num_heads=(1, 2, 4), window_size=4)
STAGES = ['stage1', 'stage2', 'stage3']


def config(cls, **options):
    if 'Backbone' in cls.__name__:
        options = dict(out_features=STAGES) | options
    return cls.config_class(**{**SIZES, 'drop_path_rate': 0.0, **options})


def build(kind, **options):
    """Three stages of 2, 4 and 2 blocks."""
    model = randomize(KINDS[kind](config(KINDS[kind], **options)))
    for name, parameter in model.named_parameters():
        if 'bias_table' in name:
            parameter.data *= 2
    return model


def inner(model):
    """The module with embeddings and encoder."""
    return getattr(model, 'swin', None) or getattr(model, 'model', None) or model


def literal_block(block):
    attention, more = block.attention, {}
    if hasattr(block, 'set_shift_and_window_size'):
        more['always_partition'] = True  # the model has set them

    def run(image):
        return block(image.flatten(0, 1)[None], tuple(image.shape[:2]), **more)[0][0].unflatten(0, image.shape[:2])

    own = getattr(attention, 'self', None)
    if own is None:
        parts, proj = (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj
        heads, positions = attention.num_attention_heads, attention.relative_position_bias
    else:
        parts, proj = (own.query, own.key, own.value), attention.output.dense
        heads, positions = own.num_attention_heads, own
    cosines, window = hasattr(own, 'logit_scale'), (block.window_size,) * 2
    if cosines:
        logits, table = (
            cosine(own.logit_scale),
            cosine_table(own.continuous_position_bias_mlp, own.relative_coords_table),
        )
    else:
        scale = (parts[0].in_features // heads) ** -0.5
        logits, table = plain(scale), plain_table(positions.relative_position_bias_table, window)
    if hasattr(block, 'mlp'):
        mlp = dict(fc1=block.mlp.fc1, act=block.mlp.activation_fn, fc2=block.mlp.fc2)
    else:
        mlp = dict(fc1=block.intermediate.dense, act=block.intermediate.intermediate_act_fn, fc2=block.output.dense)
    return LiteralBlock(
        run=run,
        window=window,
        shifts=(block.shift_size > 0,) * 2,
        qkv=lambda x: [part(x).unflatten(1, (heads, -1)).transpose(0, 1) for part in parts],
        logits=logits,
        table=table,
        proj=proj,
        norm1=block.layernorm_before,
        norm2=block.layernorm_after,
        mlp=SimpleNamespace(norm=lambda x: x, **mlp),
        post=cosines,
        masked=-200 if cosines else -100,
    )


@torch.no_grad()
def literal(model, image, reducer):
    """What comes out of each stage for one image [C, H, W], each [1, C, H, W], and what goes into each of them.

    Of models that have seen images of that size: they change their shifts for them.
    """
    model = inner(model)
    reducer = reducer.with_defaults(dict(iters=3, k=25))
    tokens, size = model.embeddings.patch_embeddings(image[None])
    tokens = model.embeddings.norm(tokens)[0].unflatten(0, size)
    stages, given = model.encoder.layers, [tokens]

    def downsample(number, image):
        rows, columns = image.shape[:2]
        made = stages[number - 1].downsample(image.flatten(0, 1)[None], (rows, columns))[0]
        given.append(made.unflatten(0, ((rows + 1) // 2, (columns + 1) // 2)))
        return given[-1]

    blocks = [[literal_block(block) for block in stage.blocks] for stage in stages]
    outputs = literal_stages(tokens, blocks, downsample, reducer)
    return [[each.permute(2, 0, 1)[None] for each in of_stages] for of_stages in (outputs, given)]


def normed(norm, maps):
    """Of maps [B, C, H, W], channel by channel."""
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
