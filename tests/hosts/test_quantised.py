"""Models whose linear layers PyTorch has quantised for CPUs: what their libraries can run, runs reduced."""

import pytest
import timm
import torch
import torchvision
from models import IMAGES, randomize, swin, vit
from transformers_models import build
from transformers_swins import build as build_swin

import fewtokens

SWIN = dict(img_size=64, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=5)
VIT = dict(img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=5)
HOSTS = {
    'timm ViT': lambda: timm.models.vision_transformer.VisionTransformer(**VIT),
    'timm Swin': lambda: timm.models.swin_transformer.SwinTransformer(**SWIN),
    'Hugging Face ViT': lambda: build('DINOv2'),
    'Hugging Face DPT': lambda: build('DPT'),
    'Hugging Face Swin': lambda: build_swin('v1'),
    'torchvision ViT': lambda: torchvision.models.VisionTransformer(64, 8, 4, 4, 32, 64),
    'OpenMMLab ViT': lambda: vit(),
    'OpenMMLab Swin': lambda: swin(),
}


def output(model):
    found = model(IMAGES)
    return found if isinstance(found, torch.Tensor) else found[0]


@torch.no_grad()
@pytest.mark.parametrize('make', HOSTS.values(), ids=HOSTS)
def test_int8(make):
    model = torch.ao.quantization.quantize_dynamic(randomize(make()), {torch.nn.Linear}, dtype=torch.qint8)
    expected = output(model)
    with fewtokens.use_sdpa(model), fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)) as attachment:
        given = output(model)
    assert attachment.passes == 1
    assert given.shape == expected.shape and given.isfinite().all() and not torch.allclose(given, expected, atol=1e-3)
    assert torch.equal(output(model), expected)
