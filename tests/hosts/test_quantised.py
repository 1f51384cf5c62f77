"""Models with quantised linear layers: what their libraries can run, runs reduced."""

import copy

import pytest
import timm
import torch
import torchvision
from models import IMAGES, randomize, swin, vit
from torch import nn
from torch.nn import functional as F
from transformers_models import build
from transformers_swins import build as build_swin

import fewtokens
from fewtokens.hosts.weights import as_numbers

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


class Rounded(torch.Tensor):
    """A weight in int8, as torchao and quanto keep it: says float32, and takes part in linear layers alone."""

    @staticmethod
    def __new__(cls, weight):
        rounded = torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)
        rounded.scale = weight.abs().amax(1, keepdim=True) / 127
        rounded.steps = (weight / rounded.scale).round().to(torch.int8)
        return rounded

    def dequantize(self):
        return self.steps * self.scale

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is F.linear:
            value, weight, *bias = args
            return F.linear(value, weight.dequantize(), *bias)
        return super().__torch_function__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(f'{func} of a quantised weight')


class Packed(nn.Linear):
    """A layer whose weight is bytes that it alone can read, as those of bitsandbytes."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features)
        self.read, self.bias = linear.weight.detach(), linear.bias
        self.weight = nn.Parameter(self.read.to(torch.int8), requires_grad=False)

    def forward(self, value):
        return F.linear(value, self.read, self.bias)


def quantise(model):
    """In place; returns the same model with numbers in the place of rounded weights."""
    twin = copy.deepcopy(model)
    for module, other in zip(model.modules(), twin.modules()):
        if type(module) is nn.Linear:
            rounded = Rounded(module.weight.detach())
            other.weight = nn.Parameter(rounded.dequantize())
            module.weight = nn.Parameter(rounded, requires_grad=False)
    return twin


@torch.no_grad()
@pytest.mark.parametrize(
    'name, reducer',
    [
        ('timm ViT', fewtokens.SharedUpdate(1, 3)),
        ('timm ViT', fewtokens.ToMe((1, 2), 8)),
        ('timm Swin', fewtokens.SharedUpdate(1, 3)),
        ('Hugging Face ViT', fewtokens.GradualUpdate((1, 2), 0.5)),
        ('torchvision ViT', fewtokens.SharedUpdate(1, 3)),
        ('OpenMMLab ViT', fewtokens.SharedUpdate(1, 3)),
    ],
)
def test_weights_that_stand_for_others(name, reducer):
    """Before they are attached to, and after."""
    model = randomize(HOSTS[name]()).float()
    with fewtokens.attach(model, reducer) as attachment:
        twin = quantise(model)
        given = output(model)
        assert attachment.passes == 1
        torch.testing.assert_close(given, output(twin))
    with fewtokens.attach(model, reducer):
        assert torch.equal(output(model), given)


@torch.no_grad()
def test_weights_that_cannot_be_read_are_not_taken_for_numbers():
    model = randomize(HOSTS['timm ViT']())
    expected = output(model)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3, spread=False)):
        unspread = output(model)
    tome = fewtokens.ToMe((1, 2), 8)
    with fewtokens.attach(model, tome):
        for block in model.blocks:
            block.attn.qkv, block.mlp.fc1 = Packed(block.attn.qkv), Packed(block.mlp.fc1)
        with pytest.raises(ValueError, match="weights of attention's keys were quantised since"):
            output(model)
    with pytest.raises(ValueError, match='those of the model are quantised: BipartiteMerge does without'):
        fewtokens.attach(model, tome)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        given = output(model)
    # The norm does what it can.
    assert torch.equal(output(model), expected)
    assert given.isfinite().all() and not torch.allclose(given, unspread, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_bytes_are_no_weights(dtype):
    assert as_numbers(torch.ones(2, 2).to(dtype)) is None
    weight = nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    assert as_numbers(weight) is weight
