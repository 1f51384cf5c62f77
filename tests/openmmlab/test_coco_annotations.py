"""Annotation files that can't be right are found before anything runs."""

import json

import numpy as np
import pytest
from coco import write_coco_config, write_coco_scenes
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.data import check_not_empty, check_samples, check_test_data

KINDS = pytest.mark.parametrize('kind', ['instances', 'panoptic'])


@pytest.fixture
def data(tmp_path):
    write_coco_scenes(tmp_path / 'data', 2)
    return tmp_path / 'data'


def load(data, kind='instances', options=None):
    return load_config(write_coco_config(data.parent, data, kind == 'panoptic'), options)


def fails(config, message, error=ValueError):
    with pytest.raises(error) as caught:
        check_test_data(config)
    assert message in str(caught.value) and '\n' not in str(caught.value)


def change(data, kind, edit):
    """Edits the annotation file in place."""
    path = data / f'annotations/{kind}_validation.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def segment(content):
    annotation = content['annotations'][0]
    return annotation['segments_info'][0] if 'segments_info' in annotation else annotation


@KINDS
def test_sound_data_is_fine_and_boxes_may_reach_beyond_the_image(data, kind):
    check_test_data(load(data, kind))
    change(data, kind, lambda content: segment(content).update(bbox=[-5, 60, 20, 20]))
    check_test_data(load(data, kind))


@KINDS
def test_cut_short(data, kind):
    path = data / f'annotations/{kind}_validation.json'
    path.write_bytes(path.read_bytes()[:-40])
    fails(load(data, kind), f"{kind}_validation.json' is cut short or no JSON: ")
    path.write_bytes(b'\xff\xd8')
    fails(load(data, kind), 'is cut short or no JSON')


def test_not_cocos_format(data):
    path = data / 'annotations/instances_validation.json'
    path.write_text('[1, 2]')
    fails(load(data), "is no annotation file in COCO's format: it has no images and no categories")


@KINDS
def test_empty_files_and_lists(data, kind):
    path = data / f'annotations/{kind}_validation.json'
    content = json.loads(path.read_text())
    for text, message in (
        ('', 'is cut short or no JSON'),
        ('{}', 'no images and no categories'),
        ('null', 'no images'),
    ):
        path.write_text(text)
        fails(load(data, kind), message)
    path.write_text(json.dumps(dict(content, images=[])))
    fails(load(data, kind), f"{kind}_validation.json' is no annotation file in COCO's format: it has no images")


@KINDS
def test_entries_that_lack_what_is_needed(data, kind):
    change(data, kind, lambda content: segment(content).pop('bbox'))
    fails(load(data, kind), 'has no category_id, or no bbox of four numbers')
    change(data, kind, lambda content: content['annotations'][1].pop('image_id'))
    fails(load(data, kind), "annotation 1 (counted from 0) of '")
    change(data, kind, lambda content: [content['images'][1].pop(key) for key in ('height', 'file_name')])
    fails(load(data, kind), "_validation.json' has no file_name and no height")
    change(data, kind, lambda content: content.update(images=dict(a=1)))
    fails(load(data, kind), 'what it has of image is no list')


@pytest.mark.parametrize('content', [b'', b'{}', b'{"images": [], "annotations": [], "categories": []}'])
def test_training_files_that_list_nothing(data, content):
    """Their annotations are not checked one by one, but that there are samples."""
    setting = load(data).test_dataloader.dataset
    check_not_empty(setting)
    (data / 'annotations/instances_validation.json').write_bytes(content)
    for wrapped in (setting, dict(type='RepeatDataset', times=2, dataset=setting)):
        with pytest.raises(ValueError, match=r"'.*instances_validation.json'"):
            check_not_empty(Config(dict(dataset=wrapped)).dataset)


def test_filters_that_leave_nothing(data):
    setting = load(data).test_dataloader.dataset
    setting.update(test_mode=False, filter_cfg=dict(min_size=65))
    with pytest.raises(ValueError, match=r"no samples in '.*instances_validation.json', or none that its filter_cfg"):
        check_not_empty(setting)


@KINDS
@pytest.mark.parametrize('turned', [False, True])
def test_pictures_of_another_size(data, kind, turned):
    """Annotations of a picture as it is stored, before its EXIF orientation is applied, would be scored beside it."""
    dataset = DATASETS.build(load(data, kind).test_dataloader.dataset)
    assert check_samples(dataset) == []
    exif = Image.Exif()
    exif[274] = 6 if turned else 1
    picture = data / 'validation/00001.jpg'
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(picture, exif=exif)
    size, hint = ('48 x 64', 'it is turned as its EXIF orientation says: ') if turned else ('64 x 48', '--skip')
    with pytest.raises(ValueError, match=f'/00001.jpg is {size} pixels, the annotations say 64 x 64; {hint}'):
        check_samples(dataset)
    assert check_samples(dataset, skip=True) == [str(picture)] and len(dataset) == 1


def test_segments_of_another_size(data):
    path = data / 'annotations/panoptic_validation/00001.png'
    Image.open(path).crop((0, 0, 64, 48)).save(path)
    with pytest.raises(ValueError, match='00001.png has labels of 64 x 48 pixels, its picture .* is 64 x 64 pixels; '):
        check_samples(DATASETS.build(load(data, 'panoptic').test_dataloader.dataset))


@KINDS
def test_images_that_are_not_listed(data, kind):
    change(data, kind, lambda content: content['annotations'][0].update(image_id=77))
    fails(load(data, kind), 'is of image 77, which the file does not list')


@KINDS
def test_boxes_outside_the_image(data, kind):
    change(data, kind, lambda content: segment(content).update(bbox=[70, 3, 20, 20]))
    fails(load(data, kind), 'has a box [70, 3, 20, 20] outside its image of 64 x 64 pixels')


@KINDS
def test_categories_that_are_not_listed(data, kind):
    change(data, kind, lambda content: segment(content).update(category_id=9))
    fails(load(data, kind), 'is of category 9, which the file does not list')


def test_the_wrong_kind_of_file(data):
    options = {'test_dataloader.dataset.ann_file': 'annotations/panoptic_validation.json'}
    fails(load(data, 'instances', options), 'is of the panoptic kind: a file of the instances kind belongs here')
    options = {'test_evaluator.ann_file': f'{data}/annotations/instances_validation.json'}
    fails(load(data, 'panoptic', options), 'is of the instances kind: a file of the panoptic kind belongs here')


def test_an_evaluator_of_other_images(data):
    write_coco_scenes(data.parent / 'less', 1)
    options = {'test_evaluator.ann_file': f'{data.parent}/less/annotations/instances_validation.json'}
    fails(load(data, 'instances', options), 'which the evaluator reads, has no image 1 of')
    change(data.parent / 'less', 'instances', lambda content: content.update(annotations=[]))
    fails(load(data, 'instances', options), 'has no annotations: there is nothing to compare predictions with')


def test_categories_that_are_not_the_classes(data):
    fails(
        load(data, 'instances', {'test_dataloader.dataset.metainfo.classes': ['thing']}),
        "has no category 'thing', which is one of the data set's 1 classes; its categories are 'object', 'ground'",
    )
    change(data, 'panoptic', lambda content: content['categories'].reverse())
    fails(load(data, 'panoptic'), "'object', 'ground' must be in the order of")


def test_classes_that_are_not_the_models(data):
    message = "model.roi_head.bbox_head is for 80 classes, the data set has 1: 'object'"
    fails(load(data, 'instances', {'model.roi_head.bbox_head.num_classes': 80}), message)
    options = {'model.panoptic_head.num_stuff_classes': 53}
    fails(load(data, 'panoptic', options), 'model.panoptic_head is for 54 classes, the data set has 2')


@pytest.mark.parametrize(
    'package, name',
    [
        ('mmdet', 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'),
        ('mmdet', 'dino/dino-5scale_swin-l_8xb2-12e_coco.py'),
        ('mmdet', 'mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py'),
        ('mmdet', 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'),
        ('mmdet', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'),
    ],
)
def test_stock_models_have_the_classes_of_coco(package, name):
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    from fewtokens.openmmlab.coco_annotations import _check_heads

    config = load_config(f'{package}::{name}')
    panoptic = 'Panoptic' in config.test_dataloader.dataset.type
    _check_heads(config.model, (CocoPanopticDataset if panoptic else CocoDataset).METAINFO)


def test_data_that_is_read_in_other_ways_is_left_alone(data):
    config = load(data)
    config.test_dataloader.dataset.type = 'LVISV1Dataset'
    check_test_data(config)


def test_missing_files(data):
    config = load(data, 'panoptic', {'test_evaluator.seg_prefix': f'{data}/nowhere'})
    fails(config, f"the evaluator has no folder '{data}/nowhere'", FileNotFoundError)
    config = load(data, 'panoptic', {'test_evaluator.ann_file': f'{data}/nothing.json'})
    fails(config, 'nothing.json', FileNotFoundError)
