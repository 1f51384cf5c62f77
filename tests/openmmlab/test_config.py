import pytest

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.config import load_config

VIT_L = 'mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py'


def test_by_name_and_by_file(config_file):
    config = load_config(VIT_L, {'model.backbone.num_layers': 3})
    assert config.model.backbone.num_layers == 3 and config.work_dir.endswith('ade20k-512x512')
    assert load_config(config_file).model.backbone.embed_dims == 32
    assert load_config('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py').model.type == 'MaskRCNN'


def test_config_that_inherits_by_name(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{VIT_L}'\nmodel = dict(backbone=dict(num_layers=2))\n")
    assert load_config(path).model.backbone.num_layers == 2


@pytest.mark.parametrize(
    'name, nearest',
    [
        ('mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-640x640.py', VIT_L),
        ('configs/demo/segmenter_scene-256.py', 'configs/demo/segmenter_scenes-256x256.py'),
        ('mmpose::anything.py', 'mmseg and mmdet'),
    ],
)
def test_nearest_names_are_offered(name, nearest):
    with pytest.raises(FileNotFoundError) as error:
        load_config(name)
    assert nearest in str(error.value)
