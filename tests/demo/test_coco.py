"""Scenes in COCO's layout: what is annotated is what is seen, and OpenMMLab's own data sets read it."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCO
from pycocotools import mask as rle

from demo.scenes.ade20k import write_ade20k
from demo.scenes.coco import MIN_PIXELS, annotate, write_coco
from demo.scenes.splits import draw_scene
from demo.scenes.textures import CLASSES, load_textures

SIZE, COUNT, SEED = 96, 4, 3


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_coco(folder, dict(training=1, validation=COUNT), SIZE, SEED)
    return folder


def annotations(data, kind):
    return json.loads((data / f'annotations/{kind}_validation.json').read_text())


def segment_ids(data, name):
    blue, green, red = np.moveaxis(cv2.imread(str(data / 'annotations/panoptic_validation' / name)).astype(int), -1, 0)
    return red + 256 * green + 65536 * blue


def test_segments_are_the_pixels_of_the_png(data):
    for image in annotations(data, 'panoptic')['annotations']:
        ids = segment_ids(data, image['file_name'])
        listed = [segment['id'] for segment in image['segments_info']]
        assert sorted(listed) == sorted(set(np.unique(ids)) - {0})
        for segment in image['segments_info']:
            mask = ids == segment['id']
            rows, columns = np.nonzero(mask)
            left, top, width, height = segment['bbox']
            assert segment['area'] == mask.sum() >= MIN_PIXELS
            assert (columns.min(), columns.max()) == (left, left + width - 1)
            assert (rows.min(), rows.max()) == (top, top + height - 1)


def test_categories_are_the_photographs_that_were_drawn(data):
    textures = load_textures()
    for number, image in enumerate(annotations(data, 'panoptic')['annotations']):
        _, labels, objects = draw_scene(textures, SIZE, SEED, 'validation', number)
        ids = segment_ids(data, image['file_name'])
        for segment in image['segments_info']:
            seen = ids == segment['id']
            (category,) = np.unique(labels[seen])
            (drawn,) = np.unique(objects[seen])
            background = drawn == 0
            assert segment['category_id'] == 1 + category + len(CLASSES) * background
        small = [n for n in np.unique(objects) if (objects == n).sum() < MIN_PIXELS]
        assert np.array_equal(ids == 0, np.isin(objects, small))


def test_instances_are_the_objects_of_the_panoptic_annotations(data):
    instances, panoptic = annotations(data, 'instances'), annotations(data, 'panoptic')
    assert [c['id'] for c in instances['categories']] == list(range(1, 1 + len(CLASSES)))
    assert len({a['id'] for a in instances['annotations']}) == len(instances['annotations'])
    for image in panoptic['annotations']:
        ids = segment_ids(data, image['file_name'])
        things = [s for s in image['segments_info'] if s['category_id'] <= len(CLASSES)]
        found = [a for a in instances['annotations'] if a['image_id'] == image['image_id']]
        assert len(found) == len(things) > 0
        for instance, thing in zip(found, things):
            assert all(instance[key] == thing[key] for key in ('category_id', 'bbox', 'area', 'iscrowd'))
            assert np.array_equal(rle.decode(instance['segmentation']), ids == thing['id'])


def test_pycocotools_reads_it(data):
    coco = COCO(str(data / 'annotations/instances_validation.json'))
    assert coco.get_img_ids() == list(range(COUNT)) and len(coco.get_cat_ids()) == len(CLASSES)
    for annotation in coco.load_anns(coco.get_ann_ids()):
        encoded = coco.annToRLE(annotation)
        assert rle.area(encoded) == annotation['area'] and rle.toBbox(encoded).tolist() == annotation['bbox']


def test_mmdet_reads_it(data):
    load = [dict(type='mmdet.LoadImageFromFile')]
    instances = CocoDataset(
        data_root=str(data),
        ann_file='annotations/instances_validation.json',
        data_prefix=dict(img='validation/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[*load, dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)],
    )
    stuff = [f'{name}-background' for name in CLASSES]
    panoptic = CocoPanopticDataset(
        data_root=str(data),
        ann_file='annotations/panoptic_validation.json',
        data_prefix=dict(img='validation/', seg='annotations/panoptic_validation/'),
        metainfo=dict(classes=[*CLASSES, *stuff], thing_classes=CLASSES, stuff_classes=stuff),
        pipeline=[*load, dict(type='mmdet.LoadPanopticAnnotations')],
    )
    assert len(instances) == len(panoptic) == COUNT
    for instance, segmented in zip(instances, panoptic):
        assert instance['gt_bboxes_labels'].tolist() == segmented['gt_bboxes_labels'].tolist()
        assert np.array_equal(instance['gt_masks'].masks, segmented['gt_masks'].masks)
        # Where nothing is annotated mmdet's map has 255.
        labels = set(np.unique(segmented['gt_seg_map']).tolist()) - {255}
        assert labels > set(instance['gt_bboxes_labels'].tolist()) and max(labels) >= len(CLASSES)


def test_same_scenes_as_in_ade20ks_layout(data, tmp_path):
    write_ade20k(tmp_path, dict(validation=COUNT), SIZE, SEED)
    for number in range(COUNT):
        name = f'{number:05d}'
        semantic = cv2.imread(str(tmp_path / f'annotations/validation/{name}.png'), cv2.IMREAD_UNCHANGED)
        image = annotations(data, 'panoptic')['annotations'][number]
        ids = segment_ids(data, f'{name}.png')
        for segment in image['segments_info']:
            assert set(semantic[ids == segment['id']]) == {1 + (segment['category_id'] - 1) % len(CLASSES)}
        written = [
            (folder / f'{name}.jpg').read_bytes() for folder in (data / 'validation', tmp_path / 'images/validation')
        ]
        assert written[0] == written[1]


def test_deterministic_and_a_larger_set_begins_with_the_smaller(data, tmp_path):
    write_coco(tmp_path, dict(validation=2), SIZE, SEED)
    for path in (p for p in tmp_path.rglob('*') if p.suffix in ('.jpg', '.png')):
        other = data / path.relative_to(tmp_path)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    few, many = annotations(tmp_path, 'instances')['annotations'], annotations(data, 'instances')['annotations']
    assert few == many[: len(few)]


def test_what_is_hardly_seen_is_left_out():
    objects, labels = np.zeros((40, 40), np.uint8), np.full((40, 40), 2, np.uint8)
    # Two pieces of one object, a box from one to the other; and an object of 31 pixels.
    objects[0:4, 0:4] = objects[30:34, 20:25] = 1
    objects[10, 0:31] = 2
    labels[objects == 1] = 7
    ids, found = annotate(labels, objects)
    assert [segment['id'] for segment in found] == [255, 1] and not ids[10, :31].any()
    assert found[1] == dict(id=1, category_id=8, bbox=[0, 0, 25, 34], area=36, iscrowd=0)
    assert found[0]['category_id'] == 1 + len(CLASSES) + 2


@pytest.mark.parametrize('name, value', [('size', 31), ('validation', -1)])
def test_impossible_sizes_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f'{name}={value}: '):
        write_coco(
            tmp_path / 'out', dict(validation=value if name == 'validation' else 1), value if name == 'size' else 64
        )
    assert not (tmp_path / 'out').exists()
