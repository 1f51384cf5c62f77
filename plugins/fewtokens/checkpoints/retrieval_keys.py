"""Published CLIP4Clip and CenterCLIP checkpoints under `ClipRetrieval`'s key names."""

import re
from collections.abc import Mapping

from torch import Tensor

PUBLISHED = 'clip.visual.conv1.weight'
"""A key that CLIP4Clip's and CenterCLIP's checkpoints have."""

PARTS = {'attn': 'self_attn', 'ln_1': 'norm1', 'ln_2': 'norm2', 'mlp.c_fc': 'linear1', 'mlp.c_proj': 'linear2'}
"""What CLIP's transformer calls the parts of a layer, and torch's own."""

_RULES = (
    (r'clip\.(visual|transformer|token_embedding|ln_final)\.(?!conv2|position_ids|.*cluster)', r'encoder.clip.\1.'),
    (r'clip\.(positional_embedding|text_projection|logit_scale)$', r'encoder.clip.\1'),
    (r'frame_position_embeddings\.weight$', 'encoder.temporal.positions'),
    *(
        (rf'transformerClip\.resblocks\.(\d+)\.{re.escape(part)}\.', rf'encoder.temporal.layers.\1.{name}.')
        for part, name in PARTS.items()
    ),
)
_CLUSTERS = re.compile(r'clip\.visual\.transformer\.resblocks\.(\d+)\.tokencluster_inter\.cluster_embed$')
"""The vectors that a clustering before a block adds to what it keeps."""
# Sizes that OpenAI's files carry beside the weights, the graph mask that a spectral clustering gets from its settings,
# vectors of frames that the published code makes and never adds, and the numbers of positions.
_NO_WEIGHT = re.compile(
    r'clip\.(input_resolution|context_length|vocab_size)$|.*\.spg$|.*\.tokencluster_inter\.cluster_frame_embed$'
    r'|clip\.visual\.position_ids$'
)


def convert_retrieval_keys(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of a CLIP4Clip (meanP, seqTransf) or CenterCLIP model with a ViT.

    CLIP's own names are the same in OpenAI's code and open_clip. The config needs the quick form of GELU that OpenAI's
    models have (`clip=dict(name='ViT-B-32', quick_gelu=True)`), `temporal=dict(layers=4, max_frames=77)` for seqTransf,
    and the clustering that the checkpoint was trained with, whose only weights are those of `cluster_embedding=True`.

    Raises:
        ValueError: another model's weights, or parts that `ClipRetrieval` has no place for.
    """
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    if PUBLISHED not in weights:
        shown = ', '.join(list(weights)[:4]) or 'none'
        raise ValueError(f'these are not the weights of CLIP4Clip or CenterCLIP with a ViT; the keys are {shown}')
    converted, lost = {}, []
    clusterings = sorted(int(found[1]) for key in weights if (found := _CLUSTERS.match(key)))
    for key, value in weights.items():
        found = _CLUSTERS.match(key)
        name = _rename_clusters(int(found[1]), clusterings) if found else _rename(key)
        if name is not None:
            converted[name] = value.float()
        elif not _NO_WEIGHT.match(key):
            lost.append(key)
    if lost:
        more = ', …' if len(lost) > 4 else ''
        raise ValueError(
            f'{len(lost)} of {len(weights)} keys have no place in ClipRetrieval, which has meanP and seqTransf on 2d '
            f'patches (no published result has others): {", ".join(lost[:4])}{more}'
        )
    return converted


def _rename_clusters(block: int, clusterings: list[int]) -> str:
    if len(clusterings) == 1:
        return 'encoder.clustering.cluster_embedding'
    return f'encoder.clustering.{clusterings.index(block)}.cluster_embedding'


def _rename(key: str) -> str | None:
    for old, new in _RULES:
        name, found = re.subn(rf'\A{old}', new, key)
        if found:
            return name
    return None
