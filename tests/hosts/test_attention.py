"""Attention over merged tokens runs in an op of ours wherever a library calls PyTorch's with the mask it was given."""

import pytest
import timm
import torch
from models import IMAGES, randomize
from timm.models.eva import Eva
from torch import nn
from torch.nn import functional as F

import fewtokens
from fewtokens.hosts import attention
from fewtokens.ops import attend, dense

SETTINGS = dict(img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=0)


def of_timm():
    return randomize(timm.models.vision_transformer.VisionTransformer(**SETTINGS))


def of_timm_eva():
    return randomize(Eva(**SETTINGS, use_rot_pos_emb=True, rope_type='dinov3', rope_rotate_half=True))


def of_torchvision():
    from torchvision.models import VisionTransformer

    model = randomize(VisionTransformer(64, 8, 4, 2, 32, 64, num_classes=5))
    fewtokens.use_sdpa(model)
    return model


def of_open_clip():
    import open_clip

    vision = dict(image_size=64, layers=4, width=32, head_width=16, patch_size=8)
    return randomize(
        open_clip.CLIP(16, vision, dict(context_length=8, vocab_size=50, width=16, heads=2, layers=1)).visual
    )


def of_transformers():
    transformers = pytest.importorskip('transformers.models.dinov2')
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=64, patch_size=8)
    model = randomize(transformers.Dinov2Model(transformers.Dinov2Config(**sizes)))
    return Maps(model)


class Maps(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).last_hidden_state


@pytest.fixture
def attended(monkeypatch):
    """The shapes of queries that came to the op; masks say what they are as if there were a device."""
    shapes = []

    def spy(query, *args):
        shapes.append(tuple(query.shape))
        return dense.attend(query, *args)

    monkeypatch.setattr(attention, 'use_kernels', lambda *args: True)
    monkeypatch.setattr(attention, 'attend', spy)
    return shapes


@torch.no_grad()
@pytest.mark.parametrize('build', [of_timm, of_timm_eva, of_torchvision, of_open_clip, of_transformers])
def test_blocks_of_every_library(build, request):
    model = build().eval()
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)):
        expected = model(IMAGES)
        attended = request.getfixturevalue('attended')
        given = model(IMAGES)
        assert attended == [(len(IMAGES), 2, 17, 16)] * 3
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
        # What is compiled has the op as well, but for nn.MultiheadAttention, of which the compiler drops the mark.
        torch._dynamo.reset()
        compiled = torch.compile(model, backend='eager', fullgraph=True)(IMAGES)
        torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
        assert len(attended) == (3 if build is of_open_clip else 6)


@torch.no_grad()
def test_torch_s_own_multihead_attention(attended):
    module, tokens = nn.MultiheadAttention(32, 2, batch_first=True), torch.randn(3, 9, 32)
    bias = torch.randint(1, 9, (3, 9)).float().log()
    expected = module(tokens, tokens, tokens, key_padding_mask=bias, need_weights=False)[0]
    masks = [dict(key_padding_mask=attention.of_keys_alone(bias)), dict(attn_mask=attention.key_mask(bias, 2))]
    for mask in masks:
        given = module(tokens, tokens, tokens, **mask, need_weights=False)[0]
        assert type(given) is torch.Tensor
        torch.testing.assert_close(given, expected)
    assert attended == [(3, 2, 9, 16)] * 2


def test_what_it_cannot_do_is_pytorch_s(attended):
    query = torch.randn(2, 2, 5, 8)
    bias = torch.randint(1, 9, (2, 5)).float().log()
    mask = attention.key_mask(bias)
    torch.manual_seed(0)
    given = F.scaled_dot_product_attention(query, query, query, mask, dropout_p=0.5)
    torch.manual_seed(0)
    assert torch.equal(given, F.scaled_dot_product_attention(query, query, query, bias[:, None, None], dropout_p=0.5))
    # To all else it is a plain tensor.
    for plain in (mask + 1, mask.exp(), mask[..., :3], mask.clone(), torch.cat([mask, mask])):
        assert type(plain) is torch.Tensor
    assert torch.equal(mask[:, :, :, :5], bias[:, None, None]) and type(mask[:, :, :, :5]) is attention.KeyMask
    assert not attended


def test_a_mask_is_plain_where_no_kernel_could_take_it():
    assert type(attention.key_mask(torch.zeros(2, 5))) is torch.Tensor


def test_the_op():
    query, key, value = torch.randn(2, 3, 7, 16), torch.randn(2, 3, 9, 16), torch.randn(2, 3, 9, 16)
    bias = torch.randint(1, 9, (2, 9)).float().log()
    bias[:, 4] = -torch.inf
    for scale in (None, 0.3):
        torch.testing.assert_close(attend(query, key, value, bias, scale), dense.attend(query, key, value, bias, scale))
    with pytest.raises(ValueError, match=r'bias \(2, 7\): one a key is needed, \(2, 9\)'):
        attend(query, key, value, bias[:, :7])
    with pytest.raises(ValueError, match='queries'):
        attend(query, key, value[:, :2], bias)
