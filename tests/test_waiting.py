"""Nothing waits for a CUDA device: shapes never depend on values, and no value is read. Proven without a device."""

import pytest
import timm
import torch
import torchvision
import transformers_models
import transformers_swins
from models import beit, randomize, segmenter, swin, vit
from sam_models import sam2_vision
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._pytree import tree_leaves

import fewtokens

REDUCERS = {
    'SharedUpdate': fewtokens.SharedUpdate(1, 3, iters=2, window=3),
    'nested': fewtokens.SharedUpdate((1, 2), (3, 2)),
    'Hourglass': fewtokens.Hourglass(1, 3),
    'BipartiteMerge': fewtokens.BipartiteMerge((1, 2), 4),
    'AvgPool': fewtokens.AvgPool(1, 3),
    'GradualUpdate': fewtokens.GradualUpdate((1, 2), 0.4),
}


SIZES = dict(img_size=64, patch_size=8, embed_dim=32, depth=4, num_heads=4)
SWIN = dict(img_size=64, patch_size=2, embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4)


def of_timm(file, name, **options):
    return lambda: getattr(getattr(timm.models, file), name)(num_classes=5, **options)


def of_hugging_face(name, **options):
    def make():
        import transformers

        return getattr(transformers, f'{name}Model')(transformers_models.config(name, **options))

    return make


def sam2():
    import transformers

    return transformers.Sam2VisionModel(sam2_vision(image_size=[64, 64]))


def open_clip_vit():
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(64, 8, 32, 4, 4, mlp_ratio=2, output_dim=16)


def torchvision_swin():
    return torchvision.models.SwinTransformer([2, 2], 16, [2, 1], [2, 4], [4, 4])


HOSTS = {
    'mmseg ViT': vit, 'timm': of_timm('vision_transformer', 'VisionTransformer', **SIZES), 'open_clip': open_clip_vit,
    'Segmenter': segmenter, 'BEiT': beit, 'MAE': lambda: beit(kind='MAE'), 'Swin of mmdet': swin,
    'Swin of mmseg': lambda: swin('mmseg'),
}  # fmt: skip
SHALLOW = SIZES | dict(depth=3)
# Hugging Face's BEiT keeps a table for all models of a process: one made here would be no real tensor later.
OTHERS = {
    'Eva of timm': of_timm('eva', 'Eva', use_rot_pos_emb=True, **SHALLOW),
    'RelPos of timm': of_timm('vision_transformer_relpos', 'VisionTransformerRelPos', **SHALLOW),
    'SAM of timm': of_timm(
        'vision_transformer_sam', 'VisionTransformerSAM', window_size=4, use_rel_pos=True, global_attn_indexes=(2,),
        neck_chans=8, **SHALLOW,
    ),
    'Swin of timm': of_timm('swin_transformer', 'SwinTransformer', **SWIN),
    'DINOv3 of Hugging Face': of_hugging_face('DINOv3ViT', num_hidden_layers=3),
    'SAM 2 of Hugging Face': sam2,
    'Swin of Hugging Face': lambda: transformers_swins.build('v1', depths=(2, 1, 1)),
    'ViT of torchvision': lambda: torchvision.models.VisionTransformer(64, 8, 3, 4, 32, 64),
    'Swin of torchvision': torchvision_swin,
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


def passes(model, reducer):
    mode = FakeTensorMode()
    on_a_device_that_is_not_here(model, mode)
    with mode, torch.no_grad():
        images = torch.randn(2, 3, 64, 64, device='cuda')
        with fewtokens.use_sdpa(model), fewtokens.attach(model, reducer) as attachment:
            out = model(images, mode='tensor') if hasattr(model, 'decode_head') else model(images)
        assert attachment.passes == 1
        return [each for each in tree_leaves(out) if isinstance(each, torch.Tensor)]


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('reducer', REDUCERS)
def test_passes(host, reducer):
    model = randomize(HOSTS[host]())
    if not REDUCERS[reducer].keeps_grid and host in ('BEiT', 'MAE', 'Swin of mmdet', 'Swin of mmseg'):
        with pytest.raises(ValueError, match='grid'):
            fewtokens.attach(model, REDUCERS[reducer])
        return
    assert {each.device.type for each in passes(model, REDUCERS[reducer])} == {'cuda'}


@pytest.mark.parametrize('host', OTHERS)
def test_passes_of_other_hosts(host):
    model = randomize(OTHERS[host]())
    reducer = fewtokens.SharedUpdate(4 if host.startswith('SAM 2') else 1, 3, iters=1)
    assert {each.device.type for each in passes(model, reducer)} == {'cuda'}


def test_reading_a_value_would_fail():
    with FakeTensorMode():
        with pytest.raises(DataDependentOutputException):
            torch.ones(1, device='cuda').item()
