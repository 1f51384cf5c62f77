"""Published models of depth under `TransformersDepthEstimator`'s key names."""

import re
from collections.abc import Mapping

from torch import Tensor

# How each layout is told from the others: a key that only it has.
LAYOUTS = {
    'dpt': r'scratch\.refinenet1\.out_conv\.weight',
    'transformers-depth': r'neck\.fusion_stage\.layers\.0\.projection\.weight',
}
PREFIX = 'network.'
"""Of transformers' model in a TransformersDepthEstimator."""

_STEM = r'pretrained\.model\.patch_embed\.backbone\.'
_BLOCK = r'pretrained\.model\.blocks\.(\d+)\.'
_RULES = (
    (_STEM + r'stem\.conv\.', 'dpt.embeddings.backbone.bit.embedder.convolution.'),
    (_STEM + r'stem\.norm\.', 'dpt.embeddings.backbone.bit.embedder.norm.'),
    (_STEM + r'stages\.(\d+)\.blocks\.(\d+)\.', r'dpt.embeddings.backbone.bit.encoder.stages.\1.layers.\2.'),
    (r'pretrained\.model\.cls_token$', 'dpt.embeddings.cls_token'),
    (r'pretrained\.model\.pos_embed$', 'dpt.embeddings.position_embeddings'),
    (r'pretrained\.model\.norm\.', 'dpt.layernorm.'),
    (_BLOCK + r'norm1\.', r'dpt.encoder.layer.\1.layernorm_before.'),
    (_BLOCK + r'norm2\.', r'dpt.encoder.layer.\1.layernorm_after.'),
    (_BLOCK + r'attn\.proj\.', r'dpt.encoder.layer.\1.attention.output.dense.'),
    (_BLOCK + r'attn\.(query|key|value)\.', r'dpt.encoder.layer.\1.attention.attention.\2.'),
    (_BLOCK + r'mlp\.fc1\.', r'dpt.encoder.layer.\1.intermediate.dense.'),
    (_BLOCK + r'mlp\.fc2\.', r'dpt.encoder.layer.\1.output.dense.'),
    (r'scratch\.output_conv\.', 'head.head.'),
)
# Numbered from 1 there; the decoder's parts from its end here.
_NUMBERED = (
    (r'pretrained\.act_postprocess(\d)\.0\.project\.0\.', 'neck.reassemble_stage.readout_projects.{}.0.'),
    (r'pretrained\.act_postprocess(\d)\.3\.', 'neck.reassemble_stage.layers.{}.projection.'),
    (r'pretrained\.act_postprocess(\d)\.4\.', 'neck.reassemble_stage.layers.{}.resize.'),
    (r'scratch\.layer(\d)_rn\.', 'neck.convs.{}.'),
)
_REFINENET = r'scratch\.refinenet(\d)\.'
_RESIDUAL = _REFINENET + r'resConfUnit(\d)\.conv(\d)\.'
_CLASSIFIER = re.compile(r'pretrained\.model\.(head|pre_logits)\.')


def convert_depth_keys(weights: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Renames the weights of a DPT (the authors', hybrid or plain), or of transformers' own models of depth.

    The pretraining's classifier is left out. Scale and shift of the models for KITTI and NYUv2 are no weights: they are
    in configs/_base_/dpt-hybrid_kitti.py and dpt-hybrid_nyu.py.

    Raises:
        ValueError: a key that has no place in transformers' model.
    """
    if layout == 'transformers-depth':
        return {PREFIX + key: value for key, value in weights.items()}
    hybrid = any(re.match(_STEM, key) for key in weights)
    converted, lost = {}, []
    for key, value in _split_attention(weights).items():
        name = _rename(key, hybrid)
        if name is not None:
            converted[PREFIX + name] = value
        elif not _CLASSIFIER.match(key):
            lost.append(key)
    if lost:
        shown = ', '.join(lost[:6]) + (', …' if len(lost) > 6 else '')
        raise ValueError(f"{len(lost)} of {len(weights)} keys have no place in transformers' DPT for depth: {shown}")
    return converted


def _split_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values are of one layer there, of three here."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if '.attn.qkv.' in key:
            names = (key.replace('.qkv.', f'.{part}.') for part in ('query', 'key', 'value'))
            parts |= zip(names, (part.clone() for part in value.chunk(3)))
        else:
            parts[key] = value
    return parts


def _rename(key: str, hybrid: bool) -> str | None:
    patches = 'dpt.embeddings.' + ('projection.' if hybrid else 'patch_embeddings.projection.')
    for old, new in ((r'pretrained\.model\.patch_embed\.proj\.', patches), *_RULES):
        name, times = re.subn(rf'\A{old}', new, key)
        if times:
            return name
    for old, new in _NUMBERED:
        if found := re.match(old, key):
            return new.format(int(found[1]) - 1) + key[found.end() :]
    if residual := re.match(_RESIDUAL, key):
        layer, unit, number = map(int, residual.groups())
        return f'neck.fusion_stage.layers.{4 - layer}.residual_layer{unit}.convolution{number}.{key[residual.end() :]}'
    if refined := re.match(_REFINENET + r'out_conv\.', key):
        return f'neck.fusion_stage.layers.{4 - int(refined[1])}.projection.{key[refined.end() :]}'
    return None
