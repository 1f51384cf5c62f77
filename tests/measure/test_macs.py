import pytest
import torch
from models import beit, segmenter, vit

import fewtokens
from fewtokens.measure.macs import count_macs


def test_macs_of_known_layers():
    assert count_macs(torch.nn.Linear(7, 5), torch.ones(3, 7)) == 3 * 7 * 5
    assert count_macs(torch.nn.Conv2d(2, 4, 3, padding=1), torch.ones(1, 2, 8, 8)) == 64 * 2 * 4 * 9


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_macs_of_a_vit_with_its_attention(device):
    tokens, width = 65, 32
    block = tokens * (4 * width * width + 8 * width * width) + 2 * tokens * tokens * width
    expected = 6 * block + 64 * 3 * 8 * 8 * width
    assert count_macs(vit().to(device), torch.empty(1, 3, 64, 64, device=device)) == expected


@pytest.mark.parametrize('make', [vit, segmenter, beit], ids=['vit', 'segmenter', 'beit'])
def test_fused_attention_counts_the_same(make):
    model, images = make(), torch.randn(1, 3, 64, 64)
    expected = count_macs(model, images)
    with fewtokens.use_sdpa(model):
        assert count_macs(model, images) == expected


def test_fewer_tokens_count_less_and_the_same_on_meta():
    model, images = segmenter(), torch.randn(2, 3, 64, 64)
    host = count_macs(model, images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        reduced = count_macs(model, images)
        assert reduced < 0.75 * host
        assert count_macs(model.to('meta'), images.to('meta')) == reduced
