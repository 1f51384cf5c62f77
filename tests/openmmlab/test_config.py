import re

import pytest

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.config import load_config

VIT_L = 'mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py'
OURS = 'fewtokens::hourglass/segmenter_vit-l_ade20k-640x640_10-28x28.py'


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
        (VIT_L.partition('/')[2], VIT_L),
        ('configs/demo/segmenter_scene-256.py', 'configs/demo/segmenter_scenes-256x256.py'),
        ('fewtokens::hourglass/segmenter_vit-l_ade20k_10-28x28.py', OURS),
        ('mmpose::anything.py', 'mmseg, mmdet, fewtokens'),
    ],
)
def test_nearest_names_are_offered(name, nearest):
    with pytest.raises(FileNotFoundError) as error:
        load_config(name)
    assert nearest in str(error.value)


@pytest.mark.parametrize(
    'name, text, message',
    [
        ('mine.py', 'a = 1\nb = [', r"'.*mine.py' cannot be read: mine.py, line 2: SyntaxError: '\[' was never closed"),
        ('mine.py', 'a = 1\n\nb = c', "mine.py, line 3: NameError: name 'c' is not defined"),
        ('mine.py', '_base_ = "base.py"', 'base.py, line 1: SyntaxError'),
        ('mine.py', '_base_ = "none.py"', 'none.py'),
        ('mine.py', 'custom_imports = dict(imports=["fewtoken"])', "import fewtoken \\(No module named 'fewtoken'\\)"),
        ('mine.py', 'custom_hooks = dict(a=1)\n_base_ = "list.py"', 'TypeError: custom_hooks='),
        (
            'mine.py',
            'from mmengine.config import read_base\nwith read_base():\n    from .none import *',
            'none.py not found',
        ),
        ('mine.json', '{"a": ', 'mine.json, line 1: JSONDecodeError'),
        ('mine.yaml', 'a: [1\nb: 2', 'ParserError'),
        ('mine.txt', 'a = 1', 'py/yml/yaml/json'),
    ],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, name, text, message):
    (tmp_path / 'base.py').write_text('a = )')
    (tmp_path / 'list.py').write_text('custom_hooks = []')
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_config(tmp_path / name)
    assert '\n' not in str(error.value) and str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('custom_hooks.1.reducer', 'AvgPool(1, 2)', 'KeyError: Index 1 exceeds the length of list'),
        ('custom_hooks.x.reducer', 'AvgPool(1, 2)', 'TypeError: list indices must be integers'),
        ('custom_hooks.0', 5, 'AttributeError'),
        ('custom_hooks.0.reducer.grid', 5, "TypeError: reducer={'grid': 5} in child config cannot inherit"),
        ('work_dir.name', 5, 'TypeError'),
    ],
)
def test_an_option_that_does_not_fit_is_named(tmp_path, key, value, message):
    path = tmp_path / 'mine.py'
    path.write_text('custom_hooks = [dict(type="FewTokensHook", reducer="AvgPool(1, 2)")]\nwork_dir = "here"')
    with pytest.raises(ValueError, match=re.escape(f'--cfg-options {key}={value} does not fit the config: {message}')):
        load_config(path, {'another': 1, key: value})
