import pytest
import torch

import fewtokens.openmmlab  # noqa: F401
from fewtokens.checkpoints.reading import load_checkpoint
from fewtokens.cli.convert_checkpoint import main as convert
from fewtokens.openmmlab.checkpoints import dataset_meta_of

WEIGHTS = {'backbone.layers.0.attn.attn.in_proj_weight': torch.ones(3)}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    'meta, found',
    [
        (None, None),
        ('text', None),
        ({}, None),
        (dict(dataset_meta=None), None),
        (dict(dataset_meta={}), None),
        (dict(dataset_meta=dict(classes=('a', 'b'))), dict(classes=('a', 'b'))),
        (dict(dataset_meta=dict(CLASSES=('a',), PALETTE=[[1, 2, 3]])), dict(classes=('a',), palette=[[1, 2, 3]])),
        (dict(CLASSES=('a',), PALETTE=None), dict(classes=('a',))),
        (dict(CLASSES=('a',), PALETTE=[[1, 2, 3]], epoch=3), dict(classes=('a',), palette=[[1, 2, 3]])),
    ],
)
def test_classes_of_a_checkpoint(meta, found):
    checkpoint = dict(state_dict=WEIGHTS, meta=meta)
    assert dataset_meta_of(checkpoint) == found and dataset_meta_of(WEIGHTS) is None
    torch.save(checkpoint, 'in.pth')
    convert(['in.pth', 'out.pth'])
    assert load_checkpoint('out.pth').get('meta', {}).get('dataset_meta') == found
