"""The same weights in timm's model and in Hugging Face's: the same reducer does the same in both."""

import re

import pytest
import timm
import torch
import transformers
from models import randomize
from torch.nn import functional as F

import fewtokens
from demo.real.dinov2 import NATIVE, as_input, load_model
from fewtokens.report.photographs import bundled_photographs

NAMES = {
    r'^(cls_token|mask_token)$': r'embeddings.\1',
    r'^pos_embed$': 'embeddings.position_embeddings',
    r'^patch_embed\.proj': 'embeddings.patch_embeddings.projection',
    r'^blocks\.': 'encoder.layer.',
    r'\.attn\.proj': '.attention.o_proj',
    r'\.attn\.': '.attention.',
    r'\.ls(\d)\.gamma': r'.layer_scale\1.lambda1',
    r'^norm\.': 'layernorm.',
}


def as_transformers(weights):
    """timm's DINOv2 weights under Hugging Face's names."""
    named = {}
    for key, value in weights.items():
        parts = zip('qkv', value.chunk(3)) if '.qkv.' in key else [(None, value)]
        for part, piece in parts:
            name = key if part is None else key.replace('.qkv.', f'.{part}_proj.')
            for pattern, replacement in NAMES.items():
                name = re.sub(pattern, replacement, name)
            named[name] = piece
    return named


def dinov2(model, **options):
    """Hugging Face's model with the weights of timm's."""
    settings = dict(hidden_size=model.embed_dim, num_hidden_layers=len(model.blocks), use_mask_token=False, **options)
    other = transformers.Dinov2Model(transformers.Dinov2Config(**settings))
    other.load_state_dict(as_transformers(model.state_dict()))
    return other.eval()


REDUCERS = [
    fewtokens.SharedUpdate(2, (9, 11)), fewtokens.SharedUpdate((1, 3), (16, (9, 8))), fewtokens.Hourglass(2, 9),
    fewtokens.BipartiteMerge((1, 3), 40), fewtokens.AvgPool(2, 9), fewtokens.GradualUpdate((1, 3), 0.3),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize('reducer', REDUCERS, ids=str)
def test_random_weights(reducer):
    settings = dict(img_size=128, patch_size=8, embed_dim=32, depth=5, num_heads=4, init_values=1.0)
    model = randomize(timm.models.vision_transformer.VisionTransformer(**settings, num_classes=0))
    other = dinov2(model, num_attention_heads=4, image_size=128, patch_size=8)
    images = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(other(images).last_hidden_state, model.forward_features(images))
    with fewtokens.attach(model, reducer), fewtokens.attach(other, reducer):
        torch.testing.assert_close(other(images).last_hidden_state, model.forward_features(images))


@torch.no_grad()
def test_real_weights_and_a_photograph():
    model = load_model().backbone
    other = dinov2(model, num_attention_heads=6, image_size=NATIVE, patch_size=14)
    image = as_input(bundled_photographs(NATIVE)['astronaut'])
    expected = model.forward_features(image)
    torch.testing.assert_close(other(image).last_hidden_state, expected, rtol=1e-3, atol=1e-3)
    reducer = fewtokens.SharedUpdate(4, 18)
    with fewtokens.attach(model, reducer) as one, fewtokens.attach(other, reducer) as another:
        reduced, given = model.forward_features(image), other(image).last_hidden_state
    assert torch.equal(one.cluster_map, another.cluster_map)
    torch.testing.assert_close(given, reduced, rtol=1e-3, atol=1e-3)
    assert 0.9 < F.cosine_similarity(given, expected, dim=-1).mean() < 0.999
