"""Published CLIP4Clip and CenterCLIP checkpoints under `ClipRetrieval`'s key names."""

import re
from collections.abc import Mapping

from torch import Tensor

PUBLISHED = 'clip.visual.conv1.weight'
"""A key that CLIP4Clip's and CenterCLIP's checkpoints have."""

PARTS = {'attn': 'self_attn', 'ln_1': 'norm1', 'ln_2': 'norm2', 'mlp.c_fc': 'linear1', 'mlp.c_proj': 'linear2'}
"""What CLIP's transformer calls the parts of a layer, and torch's own."""

_RULES = (
    (r'clip\.(visual|transformer|token_embedding|ln_final)\.(?!conv2|.*\.cluster)', r'encoder.clip.\1.'),
    (r'clip\.(positional_embedding|text_projection|logit_scale)$', r'encoder.clip.\1'),
    (r'frame_position_embeddings\.weight$', 'encoder.temporal.positions'),
    *(
        (rf'transformerClip\.resblocks\.(\d+)\.{re.escape(part)}\.', rf'encoder.temporal.layers.\1.{name}.')
        for part, name in PARTS.items()
    ),
)
# Sizes that OpenAI's files carry beside the weights, and the graph mask that a spectral clustering gets from its
# settings.
_NO_WEIGHT = re.compile(r'clip\.(input_resolution|context_length|vocab_size)$|.*\.spg$')


def convert_retrieval_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of a CLIP4Clip (meanP, seqTransf) or CenterCLIP model with a ViT.

    CLIP's own names are the same in OpenAI's code and open_clip. The config needs the quick form of GELU that OpenAI's
    models have (`clip=dict(name='ViT-B-32', quick_gelu=True)`), `temporal=dict(layers=4, max_frames=77)` for seqTransf,
    and the clustering that the checkpoint was trained with, which has no weights.

    Raises:
        ValueError: another model's weights, or parts that `ClipRetrieval` has no place for.
    """
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    if PUBLISHED not in weights:
        shown = ', '.join(list(weights)[:4]) or 'none'
        raise ValueError(f'these are not the weights of CLIP4Clip or CenterCLIP with a ViT; the keys are {shown}')
    converted, lost = {}, []
    for key, value in weights.items():
        name = _rename(key)
        if name is not None:
            converted[name] = value.float()
        elif not _NO_WEIGHT.match(key):
            lost.append(key)
    if lost:
        more = ', …' if len(lost) > 4 else ''
        raise ValueError(
            f'{len(lost)} of {len(weights)} keys have no place in ClipRetrieval, which has meanP and seqTransf on 2d '
            f'patches and no embeddings of clusters from these files: {", ".join(lost[:4])}{more}'
        )
    return converted


def _rename(key: str) -> str | None:
    for old, new in _RULES:
        name, found = re.subn(rf'\A{old}', new, key)
        if found:
            return name
    return None
