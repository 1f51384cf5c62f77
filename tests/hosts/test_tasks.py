"""Detectors and segmenters on Swin, as the stock configs describe them: thinner, on small images."""

import models
import pytest
import torch
import youtube_vis

import fewtokens
from fewtokens.measure.macs import forward
from fewtokens.measure.variants import benchmark_rows, make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

CONFIGS = [
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py',
    'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
    'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py',
    'mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py',
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
]


def build(name):
    config = load_config(name)
    config.model.backbone.depths = (1, 1, 2, 1)
    return models.randomize(build_model(config))


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    if hasattr(output, 'seg_logits'):
        return [output.seg_logits.data]
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in tensors(part)]
    return []


@pytest.mark.parametrize('name', CONFIGS)
@torch.no_grad()
def test_stock_configs_of_every_task(name):
    model, x = build(name), torch.randn(1, 3, 160, 128)
    side = model.backbone.stages[0].blocks[0].attn.window_size
    host = tensors(forward(model, x))
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, side - 2)) as attachment:
        reduced = tensors(forward(model, x))
    assert attachment.passes == 1 and attachment.token_counts[0] == 80
    # Later detection stages see as many proposals as survive, which differ.
    assert host and [out.shape[1:] for out in host] == [out.shape[1:] for out in reduced]
    assert any(a.shape != b.shape or not torch.allclose(a, b) for a, b in zip(host, reduced))
    again = tensors(forward(model, x))
    assert all(torch.equal(a, b) for a, b in zip(host, again))


@pytest.mark.parametrize('name', [CONFIGS[1], CONFIGS[3]])
def test_macs_of_models_with_and_without_fixed_shapes(name):
    model = build(name)
    rows = benchmark_rows(
        model, make_variants({'plugin': fewtokens.Hourglass(2, 4)}), torch.randn(1, 3, 224, 224), 1, 0
    )
    assert rows[0].macs == rows[1].macs > rows[2].macs


@torch.no_grad()
def test_frames_of_a_video_are_a_batch():
    config = load_config('mmdet::mask2former_vis/mask2former_swin-l-p4-w12-384-in21k_8xb2-8e_youtubevis2021.py')
    youtube_vis.shrink(config.model)
    model, videos = models.randomize(build_model(config)), torch.randn(2, 3, 3, 96, 128)
    host = tensors(forward(model, videos))
    assert host[-1].shape[:2] == (1, 12) and host[-1].shape[2] == 3  # a video, queries, frames
    with fewtokens.attach(model, fewtokens.Hourglass(2, 2)) as attachment:
        reduced = tensors(forward(model, videos))
    assert attachment.passes == 2 and attachment.token_counts == (48, 16)
    assert [out.shape for out in host] == [out.shape for out in reduced]
    assert not torch.allclose(host[-1], reduced[-1])
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)) as attachment, pytest.warns(UserWarning, match='unchanged'):
        unreduced = tensors(forward(model, videos))  # a window has as many tokens
    assert attachment.passes == 0 and all(torch.equal(a, b) for a, b in zip(host, unreduced))
