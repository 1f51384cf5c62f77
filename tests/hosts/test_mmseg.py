"""Stock mmseg configs of the supported backbones, under every kind of head, at full size on the meta device."""

import pytest
import torch
from models import segmenter
from torch import nn

import fewtokens
from fewtokens.measure.variants import count_rows, make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model

CONFIGS = {
    'segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py': 512,
    'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py': 512,
    'vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py': 512,
    'setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py': 512,
    'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py': 512,
    'setr/setr_vit-l-mla_8xb1-160k_ade20k-512x512.py': 512,
    'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py': 512,
    'beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py': 640,
    'mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py': 512,
}


@pytest.mark.parametrize('name', CONFIGS)
def test_stock_configs_of_every_head(name):
    model = build_model(load_config(f'mmseg::{name}'), device='meta')
    plugins = dict(hourglass=fewtokens.Hourglass(4, 20), shared=fewtokens.SharedUpdate((2, 5), (24, 16)))
    rows = count_rows(model, make_variants(plugins), torch.empty(1, 3, CONFIGS[name], CONFIGS[name], device='meta'))
    assert rows[0].macs == rows[1].macs > rows[2].macs > 0 and rows[0].macs > rows[3].macs


@torch.no_grad()
def test_inference_api(config_file, checkpoint, tmp_path):
    import cv2
    import numpy as np
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    picture = str(tmp_path / 'picture.png')
    cv2.imwrite(picture, np.random.randint(0, 255, (64, 64, 3), np.uint8))
    model = init_model(str(config_file), str(checkpoint), device='cpu')
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        assert inference_model(model, picture).pred_sem_seg.data.shape == (1, 64, 64)
        assert attachment.passes == 1
    inferencer = MMSegInferencer(str(config_file), str(checkpoint), device='cpu')
    with fewtokens.attach(inferencer.model, fewtokens.SharedUpdate(2, 4)) as attachment:
        inferencer(picture)
        assert attachment.passes == 1


def test_a_head_on_other_outputs_gets_all_tokens():
    for model in (segmenter(out_indices=(3, 5), head_options=dict(in_index=0)), segmenter(out_indices=(3,))):
        assert "until: 'backbone' or a number" in fewtokens.supported(model)
        with fewtokens.attach(model, fewtokens.Hourglass(2, 4)), torch.no_grad():
            assert model(torch.randn(1, 3, 64, 64), mode='tensor').shape == (1, 5, 8, 8)


def test_a_distributed_wrapper_is_looked_into():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = segmenter()
    with fewtokens.attach(Wrapper(model), fewtokens.Hourglass(2, 4)) as attachment, torch.no_grad():
        model(torch.randn(1, 3, 64, 64), mode='tensor')
        assert attachment.passes == 1 and 'module.backbone' in attachment.summary()
