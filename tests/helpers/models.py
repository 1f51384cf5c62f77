"""Tiny hosts with random weights."""

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package

# isort: split
import torch
from mmengine.registry import DefaultScope
from mmseg.models import backbones
from mmseg.registry import MODELS
from torch import nn

NORM = dict(type='LN', eps=1e-6)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def randomize(model: nn.Module) -> nn.Module:
    """Weights large enough that every part of the model shows in its output."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        spread = 1.0 if any(part in name for part in ('pos_embed', 'cls_token', 'bias_table')) else 0.1
        offset = 1.0 if parameter.ndim == 1 and name.endswith('weight') or 'gamma' in name else 0.0
        parameter.data = offset + spread * torch.randn(parameter.shape, generator=generator)
    model.eval()  # returns None for some of them
    return model


def vit(img_size=64, depth=6, **options) -> nn.Module:
    settings = dict(img_size=img_size, patch_size=8, embed_dims=32, num_layers=depth, num_heads=4, norm_cfg=NORM)
    return randomize(backbones.VisionTransformer(**settings, **options))


def beit(img_size=64, kind='BEiT', **options) -> nn.Module:
    settings = dict(img_size=img_size, patch_size=8, embed_dims=32, num_layers=6, num_heads=4, norm_cfg=NORM)
    return randomize(getattr(backbones, kind)(**settings, **options))


def swin(package='mmdet', window_size=4, **options) -> nn.Module:
    """Four stages of 2, 4, 2 and 2 blocks, 10 in all."""
    from mmdet.models.backbones import SwinTransformer as MMDetSwin

    cls = MMDetSwin if package == 'mmdet' else backbones.SwinTransformer
    settings = dict(embed_dims=8, depths=(2, 4, 2, 2), num_heads=(1, 2, 2, 4), drop_path_rate=0.0)
    return randomize(cls(window_size=window_size, **{**settings, **options}))


def segmenter(head_options=None, **options) -> nn.Module:
    backbone = dict(type='VisionTransformer', img_size=(64, 64), patch_size=8, embed_dims=32, num_layers=6, num_heads=4)
    head = dict(type='SegmenterMaskTransformerHead', in_channels=32, channels=32, embed_dims=32, num_layers=1)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(64, 64)),
        backbone=backbone | dict(norm_cfg=NORM, final_norm=True) | options,
        decode_head=head | dict(num_heads=4, num_classes=5) | (head_options or {}),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return randomize(MODELS.build(model))


def snapshot(model):
    """Everything that attaching could leave behind."""
    hooks = ('_forward_hooks', '_forward_pre_hooks', '_forward_hooks_with_kwargs', '_forward_pre_hooks_with_kwargs')
    return [
        (name, type(module), sorted(module.__dict__), [len(getattr(module, hook)) for hook in hooks])
        for name, module in model.named_modules()
    ]


def outputs(model, images=IMAGES):
    with torch.no_grad():
        out = model(images, mode='tensor') if hasattr(model, 'decode_head') else model(images)
    return torch.cat([t.flatten() for t in out]) if isinstance(out, tuple) else out
