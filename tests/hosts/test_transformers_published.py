"""Published GMACs of Mask2Former's and OneFormer's Swin-L, in Hugging Face's models with the published settings.

They are those of the backbone alone, of one image of 1152 x 1152, and of 1280 x 1280 for OneFormer.
"""

from pathlib import Path

import pytest
import torch
import transformers
from counting import Counter

import fewtokens

PAGE = Path(__file__).parents[2] / 'docs/hugging_face_swin.md'
SWIN_L = dict(
    embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12, image_size=384,
    out_features=['stage1', 'stage2', 'stage3', 'stage4'],
)  # fmt: skip
WIDE = dict(iters=4, window=7, k=49, temperature=100.0)
# Side of the image and published GMACs of the host.
MODELS = {'Mask2Former': (1152, 937), 'OneFormer': (1280, 1206)}
# Model, row, settings, published GMACs, with how many more blocks those were counted.
ROWS = [
    ('Mask2Former', 'ADE20K semantic', dict(after=8, grid=8, iters=5, window=5, k=10, temperature=100.0), 620, 1),
    ('Mask2Former', 'ADE20K panoptic', dict(after=14, grid=8, **WIDE), 769, 0),
    ('Mask2Former', 'COCO panoptic', dict(after=10, grid=8, iters=5, window=7, k=10, temperature=20.0), 663, 1),
    ('Mask2Former', 'COCO instance', dict(after=12, grid=8, iters=5, window=11, k=60, temperature=100.0), 705, 1),
    ('OneFormer', 'ADE20K panoptic', dict(after=8, grid=10, **WIDE), 1029, 0),
    ('OneFormer', 'ADE20K panoptic', dict(after=10, grid=8, **WIDE), 898, 0),
    ('OneFormer', 'ADE20K panoptic', dict(after=8, grid=8, **WIDE), 846, 0),
]


@pytest.fixture(scope='module', params=MODELS)
def model(request):
    """A whole model as Hugging Face has it, on the meta device, and what counts its backbone."""
    config = getattr(transformers, f'{request.param}Config')(backbone_config=transformers.SwinConfig(**SWIN_L))
    with torch.device('meta'):
        model = getattr(transformers, f'{request.param}ForUniversalSegmentation')(config).eval()
    side, _ = MODELS[request.param]
    return request.param, model, Counter(model.model.pixel_level_module.encoder, 1, side, side)


def test_published_rows(model):
    name, model, count = model
    _, published = MODELS[name]
    host, with_norms = count()
    assert with_norms == pytest.approx(published, rel=0.0005)
    for of, row, settings, gmacs, earlier in ROWS:
        if of != name:
            continue
        reducer = fewtokens.Hourglass(**settings | dict(after=settings['after'] - earlier))
        macs, with_norms = count(reducer, model)
        assert with_norms == pytest.approx(gmacs, rel=0.002)
        assert macs / host == pytest.approx(gmacs / published, rel=0.005)
        written = ', '.join(f'{key}={value}' for key, value in settings.items())
        assert f'| {row} | `Hourglass({written})` | {gmacs} |' in PAGE.read_text()
