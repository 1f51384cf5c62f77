"""Published models under the key names of today's mmseg, mmdet and `ClipRetrieval`: vision transformers and Segmenters;
detectors by `detector_keys`, CLIP4Clip and CenterCLIP by `retrieval_keys`, models of depth by `depth_keys`."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from . import depth_keys as depth
from . import detector_keys as detectors
from .retrieval_keys import PUBLISHED, convert_retrieval_keys

# Two names for one layout: CenterCLIP's clusterings have no weights.
RETRIEVAL = dict.fromkeys(('clip4clip', 'centerclip'), re.escape(PUBLISHED))
# How each layout is told from the others: a key that only it has.
LAYOUTS = {
    'mmseg': r'(backbone\.)?layers\.0\.attn\.attn\.in_proj_weight',
    'segmenter': r'encoder\.blocks\.0\.attn\.qkv\.weight',
    'timm': r'blocks\.0\.attn\.qkv\.weight',
    'google': r'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel',
    **RETRIEVAL,
    **detectors.LAYOUTS,
    **depth.LAYOUTS,
}
# Parts that no segmenter has: the classifier of the pretraining.
CLASSIFIER = re.compile(r'(encoder\.)?(head|pre_logits)(\.|/|$)')

_BLOCK = (
    (r'blocks\.(\d+)\.norm(\d)\.', r'layers.\1.ln\2.'),
    (r'blocks\.(\d+)\.attn\.qkv\.', r'layers.\1.attn.attn.in_proj_'),
    (r'blocks\.(\d+)\.attn\.proj\.', r'layers.\1.attn.attn.out_proj.'),
    (r'blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
    (r'blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
)
_VIT = (
    (r'(cls_token|pos_embed)$', r'\1'),
    (r'patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'norm\.', 'ln1.'),
    *_BLOCK,
)
_SEGMENTER = (
    *((rf'encoder\.{old}', rf'backbone.{new}') for old, new in _VIT),
    *((rf'decoder\.{old}', rf'decode_head.{new}') for old, new in _BLOCK),
    (r'decoder\.(cls_emb$|decoder_norm\.|mask_norm\.)', r'decode_head.\1'),
    (r'decoder\.proj_dec\.', 'decode_head.dec_proj.'),
    (r'decoder\.proj_(patch|classes)$', r'decode_head.\1_proj.weight'),
    (r'decoder\.head\.', 'decode_head.conv_seg.'),
)
# MMSegmentation 0.x has today's names, but for files that say norm where MMCV now names a layer norm ln.
_MMSEG = (
    (r'((?:backbone\.|decode_head\.)?layers\.\d+\.)norm(\d)\.', r'\1ln\2.'),
    (r'((?:backbone\.)?)norm1?\.', r'\1ln1.'),
    (r'((?:backbone|decode_head|auxiliary_head|layers|patch_embed|ln1)\..*|cls_token|pos_embed)$', r'\1'),
)
_GOOGLE = (
    (r'cls$', 'cls_token'),
    (r'embedding/', 'patch_embed.projection.'),
    (r'Transformer/posembed_input/pos_embedding$', 'pos_embed'),
    (r'Transformer/encoder_norm/', 'ln1.'),
    (r'Transformer/encoderblock_(\d+)/LayerNorm_0/', r'layers.\1.ln1.'),
    (r'Transformer/encoderblock_(\d+)/LayerNorm_2/', r'layers.\1.ln2.'),
    (r'Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_1/(query|key|value)/', r'layers.\1.\2.'),
    (r'Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_1/out/', r'layers.\1.attn.attn.out_proj.'),
    (r'Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_0/', r'layers.\1.ffn.layers.0.0.'),
    (r'Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_1/', r'layers.\1.ffn.layers.1.'),
)
_RULES = {'mmseg': _MMSEG, 'segmenter': _SEGMENTER, 'timm': _VIT, 'google': _GOOGLE, **detectors.RULES}


def convert_keys(weights: Mapping[str, Tensor], layout: str = 'auto') -> dict[str, Tensor]:
    """Renames a published model's weights, and reshapes or reorders those that a layout stores otherwise.

    A position table keeps its size: where a config has another, mmseg resizes it as it loads the backbone
    (`model.pretrained`). The bias of a ViT's patch projection, which mmseg's own configs have no place for, is added to
    the patches' positions: their sum is what it was. The pretraining's classifier is left out. detrex has a bias before
    the neck's group norms: the config needs `model.neck.bias=True`.

    Args:
        weights: the state_dict of a published checkpoint.
        layout: 'mmseg' (MMSegmentation 0.x or 1.x), 'timm' (a timm or DeiT .pth), 'segmenter' (the authors' Segmenter),
            'google' (the arrays of a .npz), 'detrex' (DINO with Swin), 'mask2former' (the authors', with Swin, for
            mmdet), 'mask2former-mmseg' or 'mask2former-vis' (the same, semantic for mmseg, and of videos for mmdet:
            never found by themselves), 'maskdino' (the authors', with Swin), 'swin' (the authors' backbone),
            'timm-swin', 'clip4clip' or 'centerclip' (see `convert_retrieval_keys`), 'dpt' or 'transformers-depth' (see
            `convert_depth_keys`), or 'auto' to find out.

    Returns:
        the state_dict of an mmseg `VisionTransformer`, of a whole model if the checkpoint is one (retrieval models are
        `ClipRetrieval`s), or, with the prefix `backbone.` that `init_cfg` expects, of a `SwinTransformer`.

    Raises:
        ValueError: a layout that isn't known, or a key that has no place in OpenMMLab's model.
    """
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    if layout == 'auto':
        layout = find_layout(weights)
    elif layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not known; known are 'auto', {', '.join(map(repr, LAYOUTS))}")
    if layout in RETRIEVAL:
        return convert_retrieval_keys(weights)
    if layout in depth.LAYOUTS:
        return depth.convert_depth_keys(weights, layout)
    dropped = detectors.DROPPED if layout in detectors.LAYOUTS else CLASSIFIER
    converted, lost = {}, []
    for key, value in weights.items():
        name = _rename(key, _RULES[layout])
        if name is not None:
            converted[name] = value
        elif not dropped.match(key):
            lost.append(key)
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(weights)} keys have no place in OpenMMLab's model "
            f'(read as layout {layout!r}): {_some(lost)}'
        )
    if layout in detectors.LAYOUTS:
        return detectors.adapt_weights(converted)
    if layout == 'google':
        converted = _from_google(converted)
    elif layout == 'segmenter':
        converted = _from_segmenter(converted)
    return _fold_patch_bias(converted)


def find_layout(weights: Mapping[str, Tensor]) -> str:
    """The one of `LAYOUTS` that has these keys; none is a `ValueError` that shows some of them."""
    for layout, pattern in LAYOUTS.items():
        if any(re.fullmatch(pattern, key) for key in weights):
            return layout
    raise ValueError(
        f'these weights are in no known layout ({", ".join(LAYOUTS)}); the keys are {_some(list(weights))}'
    )


def _rename(key: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in rules:
        name, found = re.subn(rf'\A{old}', new, key)
        if found:
            return name
    return None


def _some(keys: list[str], number: int = 6) -> str:
    return ', '.join(keys[:number]) + (', …' if len(keys) > number else '') if keys else 'none'


def _fold_patch_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every patch gets the same bias and then its position, so the sum of the two can be stored as the position."""
    weights = dict(weights)
    for prefix in ('', 'backbone.'):
        bias, positions = f'{prefix}patch_embed.projection.bias', f'{prefix}pos_embed'
        if bias in weights and positions in weights:
            folded = weights[positions].clone()
            folded[:, int(f'{prefix}cls_token' in weights) :] += weights.pop(bias)
            weights[positions] = folded
    return weights


def _from_segmenter(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in ('patch_proj', 'classes_proj'):
        key = f'decode_head.{name}.weight'
        if key in weights:  # a plain matrix there, multiplied from the right: x @ w; a linear layer is x @ w.T
            weights[key] = weights[key].T.contiguous()
    key = 'decode_head.conv_seg.weight'
    if key in weights:  # the linear decoder: a linear layer there, a 1 x 1 convolution here
        weights[key] = weights[key][:, :, None, None]
    return weights


def _from_google(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """JAX multiplies from the right, has channels last, and keeps heads apart: query [C, heads, C / heads]."""
    result: dict[str, Tensor] = {}
    attention: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in weights.items():
        key = re.sub(r'scale$', 'weight', key)
        if part := re.fullmatch(r'(layers\.\d+\.)(query|key|value)\.(kernel|bias)', key):
            layer, projection, kind = part.groups()
            attention.setdefault((layer, kind), {})[projection] = value
        elif key.endswith('kernel'):
            key = key.removesuffix('kernel') + 'weight'
            if 'projection' in key:
                result[key] = value.permute(3, 2, 0, 1).contiguous()  # [height, width, in, out]
            else:
                result[key] = value.flatten(0, -2).T.contiguous()
        else:
            result[key] = value
    for (layer, kind), parts in attention.items():
        joined = [parts[projection] for projection in ('query', 'key', 'value')]
        if kind == 'kernel':
            result[f'{layer}attn.attn.in_proj_weight'] = torch.cat([part.flatten(1).T for part in joined])
        else:
            result[f'{layer}attn.attn.in_proj_bias'] = torch.cat([part.flatten() for part in joined])
    return result
