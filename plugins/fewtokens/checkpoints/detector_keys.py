"""Published Swin detectors and segmenters with queries under the key names of today's mmdet and mmseg.

Rules for `checkpoint_keys`: layouts, key names, what is left out, and what has to be done to the weights themselves.
"""

import math
import re

import torch
from torch import Tensor

from ..ops.relative_positions import relative_offsets

_MASK2FORMER_KEY = r'sem_seg_head\.predictor\.transformer_cross_attention_layers\.0\.multihead_attn\.in_proj_weight'
# A semantic Mask2Former of mmseg and one of videos cannot be told from mmdet's by their keys: they are never found,
# only named.
LAYOUTS = {
    'detrex': r'transformer\.decoder\.layers\.0\.attentions\.1\.sampling_offsets\.weight',
    'mask2former': _MASK2FORMER_KEY,
    'mask2former-mmseg': _MASK2FORMER_KEY,
    'mask2former-vis': _MASK2FORMER_KEY,
    'maskdino': r'sem_seg_head\.predictor\.decoder\.layers\.0\.cross_attn\.sampling_offsets\.weight',
    'swin': r'layers\.0\.downsample\.reduction\.weight',
    'timm-swin': r'layers\.1\.downsample\.reduction\.weight',
}
# Losses, normalisation of images, and the classifier of the pretraining with its norm; in Swin, what follows from the
# window's side; in detrex and MaskDINO, what is there a second time, as more than one part refers to it.
DROPPED = re.compile(
    r'criterion\.|pixel_(mean|std)$|(head|norm)\.|(.*\.)?(attn_mask|relative_position_index)$'
    r'|transformer\.decoder\.(class|bbox)_embed\.|sem_seg_head\.predictor\.((decoder\.)?bbox_embed|decoder_norm)\.'
)
# ADE20K's 50 classes of stuff, in the order of its 150: mmdet's panoptic classes are the things, then the stuff.
ADE20K_STUFF = (
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77,
    79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
)  # fmt: skip

_SWIN = (
    (r'patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'(patch_embed\.norm|norm\d)\.', r'\1.'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.norm(\d)\.', r'stages.\1.blocks.\2.norm\3.'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.attn\.(relative_position_bias_table$|qkv\.|proj\.)',
     r'stages.\1.blocks.\2.attn.w_msa.\3'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.', r'stages.\1.blocks.\2.ffn.layers.0.0.'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.', r'stages.\1.blocks.\2.ffn.layers.1.'),
    (r'layers\.(\d+)\.downsample\.(norm|reduction)\.', r'stages.\1.downsample.\2.'),
)  # fmt: skip
_BACKBONE = tuple((rf'backbone\.{old}', f'backbone.{new}') for old, new in _SWIN)
_DETREX = (
    *_BACKBONE,
    (r'neck\.((?:extra_)?convs)\.(\d+)\.conv\.', r'neck.\1.\2.conv.'),
    (r'neck\.((?:extra_)?convs)\.(\d+)\.norm\.', r'neck.\1.\2.gn.'),
    (r'transformer\.level_embeds$', 'level_embed'),
    (r'transformer\.tgt_embed\.', 'query_embedding.'),
    (r'transformer\.enc_output\.', 'memory_trans_fc.'),
    (r'transformer\.enc_output_norm\.', 'memory_trans_norm.'),
    (r'transformer\.encoder\.layers\.(\d+)\.attentions\.0\.', r'encoder.layers.\1.self_attn.'),
    (r'transformer\.decoder\.layers\.(\d+)\.attentions\.0\.attn\.', r'decoder.layers.\1.self_attn.attn.'),
    (r'transformer\.decoder\.layers\.(\d+)\.attentions\.1\.', r'decoder.layers.\1.cross_attn.'),
    (r'transformer\.(encoder|decoder)\.layers\.(\d+)\.ffns\.0\.layers\.', r'\1.layers.\2.ffn.layers.'),
    (r'transformer\.(encoder|decoder)\.layers\.(\d+)\.norms\.', r'\1.layers.\2.norms.'),
    (r'transformer\.decoder\.(ref_point_head|norm)\.', r'decoder.\1.'),
    (r'class_embed\.(\d+)\.', r'bbox_head.cls_branches.\1.'),
    # mmdet keeps the activations between the layers of a perceptron in the same list.
    *((rf'bbox_embed\.(\d+)\.layers\.{i}\.', rf'bbox_head.reg_branches.\1.{2 * i}.') for i in range(3)),
    (r'label_enc\.', 'dn_query_generator.label_embedding.'),
)
_PIXEL_ENCODER = r'sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(\d+)\.'
_PREDICTOR = r'sem_seg_head\.predictor\.'
_PIXEL_DECODER = (
    (r'sem_seg_head\.pixel_decoder\.input_proj\.(\d+)\.0\.', r'pixel_decoder.input_convs.\1.conv.'),
    (r'sem_seg_head\.pixel_decoder\.input_proj\.(\d+)\.1\.', r'pixel_decoder.input_convs.\1.gn.'),
    (r'sem_seg_head\.pixel_decoder\.transformer\.level_embed$', 'pixel_decoder.level_encoding.weight'),
    (rf'{_PIXEL_ENCODER}self_attn\.', r'pixel_decoder.encoder.layers.\1.self_attn.'),
    (rf'{_PIXEL_ENCODER}norm1\.', r'pixel_decoder.encoder.layers.\1.norms.0.'),
    (rf'{_PIXEL_ENCODER}norm2\.', r'pixel_decoder.encoder.layers.\1.norms.1.'),
    (rf'{_PIXEL_ENCODER}linear1\.', r'pixel_decoder.encoder.layers.\1.ffn.layers.0.0.'),
    (rf'{_PIXEL_ENCODER}linear2\.', r'pixel_decoder.encoder.layers.\1.ffn.layers.1.'),
    (r'sem_seg_head\.pixel_decoder\.adapter_1\.norm\.', 'pixel_decoder.lateral_convs.0.gn.'),
    (r'sem_seg_head\.pixel_decoder\.adapter_1\.weight$', 'pixel_decoder.lateral_convs.0.conv.weight'),
    (r'sem_seg_head\.pixel_decoder\.layer_1\.norm\.', 'pixel_decoder.output_convs.0.gn.'),
    (r'sem_seg_head\.pixel_decoder\.layer_1\.weight$', 'pixel_decoder.output_convs.0.conv.weight'),
    (r'sem_seg_head\.pixel_decoder\.mask_features\.', 'pixel_decoder.mask_feature.'),
)
_MASK2FORMER_HEAD = (
    *_PIXEL_DECODER,
    # A layer attends to the image first, then among the queries.
    (rf'{_PREDICTOR}transformer_cross_attention_layers\.(\d+)\.multihead_attn\.',
     r'transformer_decoder.layers.\1.cross_attn.attn.'),
    (rf'{_PREDICTOR}transformer_self_attention_layers\.(\d+)\.self_attn\.',
     r'transformer_decoder.layers.\1.self_attn.attn.'),
    (rf'{_PREDICTOR}transformer_cross_attention_layers\.(\d+)\.norm\.', r'transformer_decoder.layers.\1.norms.0.'),
    (rf'{_PREDICTOR}transformer_self_attention_layers\.(\d+)\.norm\.', r'transformer_decoder.layers.\1.norms.1.'),
    (rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.norm\.', r'transformer_decoder.layers.\1.norms.2.'),
    (rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.linear1\.', r'transformer_decoder.layers.\1.ffn.layers.0.0.'),
    (rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.linear2\.', r'transformer_decoder.layers.\1.ffn.layers.1.'),
    (rf'{_PREDICTOR}decoder_norm\.', 'transformer_decoder.post_norm.'),
    (rf'{_PREDICTOR}(?:query_feat|static_query)\.', 'query_feat.'),  # its name in files before detectron2's version 2
    (rf'{_PREDICTOR}(query_embed|level_embed)\.', r'\1.'),
    (rf'{_PREDICTOR}class_embed\.', 'cls_embed.'),
    *((rf'{_PREDICTOR}mask_embed\.layers\.{i}\.', f'mask_embed.{2 * i}.') for i in range(3)),
)  # fmt: skip
_MASKDINO_DECODER = rf'{_PREDICTOR}decoder\.layers\.(\d+)\.'
_MASKDINO_HEAD = (
    *_PIXEL_DECODER,
    (rf'{_MASKDINO_DECODER}self_attn\.', r'decoder.layers.\1.self_attn.attn.'),
    (rf'{_MASKDINO_DECODER}cross_attn\.', r'decoder.layers.\1.cross_attn.'),
    # Norms are numbered as in DETR, whose queries attend to themselves later; layers here have them in order.
    *((rf'{_MASKDINO_DECODER}norm{old}\.', rf'decoder.layers.\1.norms.{new}.') for new, old in enumerate((2, 1, 3))),
    (rf'{_MASKDINO_DECODER}linear1\.', r'decoder.layers.\1.ffn.layers.0.0.'),
    (rf'{_MASKDINO_DECODER}linear2\.', r'decoder.layers.\1.ffn.layers.1.'),
    (rf'{_PREDICTOR}decoder\.(norm|ref_point_head)\.', r'decoder.\1.'),
    (rf'{_PREDICTOR}enc_output\.', 'memory_trans_fc.'),
    (rf'{_PREDICTOR}enc_output_norm\.', 'memory_trans_norm.'),
    (rf'{_PREDICTOR}class_embed\.', 'cls_embed.'),
    (rf'{_PREDICTOR}mask_embed\.', 'mask_embed.'),
    (rf'{_PREDICTOR}_bbox_embed\.', 'bbox_embed.'),
    (rf'{_PREDICTOR}label_enc\.', 'dn_query_generator.label_embedding.'),
)
RULES = {
    'detrex': _DETREX,
    'mask2former': (*_BACKBONE, *((old, f'panoptic_head.{new}') for old, new in _MASK2FORMER_HEAD)),
    'mask2former-mmseg': (*_BACKBONE, *((old, f'decode_head.{new}') for old, new in _MASK2FORMER_HEAD)),
    'mask2former-vis': (*_BACKBONE, *((old, f'track_head.{new}') for old, new in _MASK2FORMER_HEAD)),
    'maskdino': (*_BACKBONE, *((old, f'panoptic_head.{new}') for old, new in _MASKDINO_HEAD)),
    'swin': tuple((old, f'backbone.{new}') for old, new in _SWIN),
    # timm has a merging of patches at the beginning of the stage that it leads to.
    'timm-swin': (
        *(
            (rf'layers\.{i + 1}\.downsample\.(norm|reduction)\.', rf'backbone.stages.{i}.downsample.\1.')
            for i in range(3)
        ),
        *((old, f'backbone.{new}') for old, new in _SWIN[:-1]),
    ),
}


def adapt_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What names alone don't do: orders of merged patches and of classes, positions within windows, DINO's waves."""
    result = {}
    for key, value in weights.items():
        if '.downsample.' in key:
            value = _reorder_merged_patches(value)
        elif key == 'decoder.ref_point_head.layers.0.weight' and value.shape[1] == 2 * len(value):
            value = _spread_waves(value)
        result[key] = value
        if key.endswith('relative_position_bias_table'):
            side = (math.isqrt(len(value)) + 1) // 2
            result[key.replace('bias_table', 'index')] = relative_offsets((side, side), device=value.device).clone()
    for key in ('panoptic_head.cls_embed.weight', 'panoptic_head.cls_embed.bias'):
        if key in result and len(result[key]) == 151:
            things = [i for i in range(150) if i not in ADE20K_STUFF]
            result[key] = result[key][[*things, *ADE20K_STUFF, 150]]
    return result


def _reorder_merged_patches(weight: Tensor) -> Tensor:
    """The last dimension, from four patches of C channels to C channels of four patches.

    Swin goes through the 2 x 2 patches column by column; the unfolding in mmdet and mmseg row by row.
    """
    return weight.unflatten(-1, (2, 2, -1)).permute(*range(weight.ndim - 1), -1, -2, -3).flatten(-3).contiguous()


def _spread_waves(weight: Tensor) -> Tensor:
    """For twice as many waves to each side of a box, as mmdet's DINO has since 3.5.1: every second is one of before."""
    sides = weight.unflatten(1, (4, -1, 1, 2))  # sine and cosine
    return torch.cat([sides, torch.zeros_like(sides)], dim=3).flatten(1)
