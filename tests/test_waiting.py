"""Nothing waits for a CUDA device: shapes never depend on values, and no value is read. Proven without a device."""

import pytest
import timm
import torch
from models import beit, randomize, segmenter, swin, vit
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import fewtokens

REDUCERS = {
    'SharedUpdate': fewtokens.SharedUpdate(1, 3, iters=2, window=3),
    'nested': fewtokens.SharedUpdate((1, 2), (3, 2)),
    'Hourglass': fewtokens.Hourglass(1, 3),
    'BipartiteMerge': fewtokens.BipartiteMerge((1, 2), 4),
    'AvgPool': fewtokens.AvgPool(1, 3),
    'GradualUpdate': fewtokens.GradualUpdate((1, 2), 0.4),
}


def timm_vit():
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=5)
    return timm.models.vision_transformer.VisionTransformer(**settings)


def open_clip_vit():
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(64, 8, 32, 4, 4, mlp_ratio=2, output_dim=16)


HOSTS = {
    'mmseg ViT': vit, 'timm': timm_vit, 'open_clip': open_clip_vit, 'Segmenter': segmenter, 'BEiT': beit,
    'MAE': lambda: beit(kind='MAE'), 'Swin of mmdet': swin, 'Swin of mmseg': lambda: swin('mmseg'),
}  # fmt: skip


def on_a_device_that_is_not_here(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    def move(tensor):
        fake = mode.from_tensor(tensor.detach())
        with mode:
            return fake.to('cuda')

    for module in model.modules():
        module._parameters.update({k: nn.Parameter(move(p)) for k, p in module._parameters.items() if p is not None})
        module._buffers.update({k: move(b) for k, b in module._buffers.items() if b is not None})
    return model


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('reducer', REDUCERS)
def test_passes(host, reducer):
    model = randomize(HOSTS[host]())
    if not REDUCERS[reducer].keeps_grid and host in ('BEiT', 'MAE', 'Swin of mmdet', 'Swin of mmseg'):
        with pytest.raises(ValueError, match='grid'):
            fewtokens.attach(model, REDUCERS[reducer])
        return
    mode = FakeTensorMode()
    on_a_device_that_is_not_here(model, mode)
    with mode, torch.no_grad():
        images = torch.randn(2, 3, 64, 64, device='cuda')
        with fewtokens.use_sdpa(model), fewtokens.attach(model, REDUCERS[reducer]) as attachment:
            out = model(images, mode='tensor') if hasattr(model, 'decode_head') else model(images)
        assert attachment.passes == 1
        for each in out if isinstance(out, (tuple, list)) else [out]:
            assert each.device.type == 'cuda'


def test_reading_a_value_would_fail():
    with FakeTensorMode():
        with pytest.raises(DataDependentOutputException):
            torch.ones(1, device='cuda').item()
