import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric as mmdets
from pycocotools import mask as rle

from fewtokens.openmmlab.coco_metric import FastCocoMetric, match

CLASSES = ('cup', 'bowl', 'fork', 'never seen')
IDS = (3, 7, 9, 12)
SIDE = 160


def draw(box):
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[max(y, 0) : y + max(h, 1), max(x, 0) : x + max(w, 1)] = 1
    # A corner is missing: boxes and masks overlap differently.
    mask[max(y, 0) : y + h // 2, max(x, 0) : x + w // 2] = 0
    return mask


def encode(mask):
    encoded = rle.encode(np.asfortranarray(mask))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def random_box(random):
    """From 4 pixels to most of the image: small, medium and large objects."""
    size = np.exp(random.uniform(np.log(4), np.log(140), 2))
    return [*np.round(random.uniform(0, SIDE - size), 1).tolist(), *np.round(size, 1).tolist()]


def make_truth(path, random, images=9):
    annotations = []
    for image in range(images - 1):  # the last one is empty
        for _ in range(random.integers(1, 9)):
            box = random_box(random)
            mask, crowd = draw(box), int(random.random() < 0.2)
            area, category = float(mask.sum()), int(random.choice(IDS[:3]))
            described = dict(id=len(annotations) + 1, image_id=image, category_id=category, bbox=box)
            annotations.append(described | dict(area=area, iscrowd=crowd, segmentation=encode(mask)))
    content = dict(
        images=[dict(id=i, width=SIDE, height=SIDE, file_name=f'{i}.jpg') for i in range(images)],
        annotations=annotations,
        categories=[dict(id=id, name=name) for id, name in zip(IDS, CLASSES)],
    )
    path.write_text(json.dumps(content))
    return content


def make_predictions(truth, random, per_image):
    """The truth shifted a little, more than once, and noise; scores of two digits, so that there are equal ones."""
    samples = []
    for image in truth['images']:
        objects = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        boxes, labels = [], []
        for number in range(per_image):
            if objects and number % 3:
                source = objects[number % len(objects)]
                boxes.append((np.array(source['bbox']) + random.normal(0, 3, 4)).clip(1, 150).tolist())
                labels.append(IDS.index(source['category_id']) if random.random() < 0.9 else 3)
            else:
                boxes.append(random_box(random))
                labels.append(int(random.integers(4)))
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        masks = np.stack([draw(box) for box in boxes]) if len(boxes) else np.zeros((0, SIDE, SIDE), np.uint8)
        instances = dict(
            bboxes=torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.from_numpy(random.integers(1, 100, len(boxes)) / 100).float(),
            masks=torch.from_numpy(masks.astype(bool)),
        )
        samples.append(dict(img_id=image['id'], ori_shape=(SIDE, SIDE), pred_instances=instances))
    return samples


def evaluate(cls, path, samples, **options):
    metric = cls(ann_file=str(path), **{'metric': ['bbox', 'segm'], **options})
    metric.dataset_meta = dict(classes=CLASSES)
    for sample in samples:
        metric.process({}, [dict(sample, pred_instances=dict(sample['pred_instances']))])
    return metric.evaluate(len(samples)), metric


@pytest.fixture
def unrounded(monkeypatch):
    """mmdet's metric without its rounding to three digits."""
    monkeypatch.setattr(mmdets, 'round', lambda value, digits: value, raising=False)


@pytest.mark.parametrize('seed, per_image', [(0, 12), (1, 2), (2, 130)])
def test_fast_metric_equals_mmdets(tmp_path, unrounded, seed, per_image):
    random = np.random.default_rng(seed)
    truth = make_truth(tmp_path / 'a.json', random)
    samples = make_predictions(truth, random, per_image)
    fast, metric = evaluate(FastCocoMetric, tmp_path / 'a.json', samples)
    slow, _ = evaluate(CocoMetric, tmp_path / 'a.json', samples)
    assert len(fast) == 12 and set(fast) == set(slow) and fast['coco/bbox_mAP'] > 0.02 and fast['coco/segm_mAP'] > 0.02
    assert any(a['iscrowd'] for a in truth['annotations'])
    assert [fast[name] for name in slow] == pytest.approx(list(slow.values()), abs=1e-6)
    for name, headline in (('bbox', 'box AP'), ('segm', 'mask AP')):
        once = metric.statistics[headline].headline(np.ones((1, 9)))
        assert once == pytest.approx(100 * fast[f'coco/{name}_mAP'], abs=1e-6)


def test_an_image_drawn_twice_is_an_image_copied(tmp_path):
    random = np.random.default_rng(3)
    truth = make_truth(tmp_path / 'a.json', random, 6)
    samples = make_predictions(truth, random, 9)
    _, metric = evaluate(FastCocoMetric, tmp_path / 'a.json', samples)
    counts = np.array([2, 0, 1, 3, 0, 1])
    drawn = np.repeat(np.arange(6), counts)
    annotations = [dict(a, image_id=n) for n, i in enumerate(drawn) for a in truth['annotations'] if a['image_id'] == i]
    annotations = [dict(a, id=number + 1) for number, a in enumerate(annotations)]
    images = [dict(truth['images'][0], id=n) for n in range(len(drawn))]
    (tmp_path / 'b.json').write_text(json.dumps(dict(truth, images=images, annotations=annotations)))
    copied, _ = evaluate(FastCocoMetric, tmp_path / 'b.json', [dict(samples[i], img_id=n) for n, i in enumerate(drawn)])
    for name, headline in (('bbox', 'box AP'), ('segm', 'mask AP')):
        found = metric.statistics[headline].headline(counts[None])
        assert found == pytest.approx(100 * copied[f'coco/{name}_mAP'], abs=1e-6)


def test_no_detection_is_an_ap_of_zero(tmp_path):
    random = np.random.default_rng(0)
    truth = make_truth(tmp_path / 'a.json', random)
    found, metric = evaluate(FastCocoMetric, tmp_path / 'a.json', make_predictions(truth, random, 0))
    assert found['coco/bbox_mAP'] == found['coco/segm_mAP'] == 0
    assert metric.statistics['box AP'].headline(np.ones((1, 9))) == 0


def test_images_that_were_not_evaluated_do_not_count(tmp_path, unrounded):
    random = np.random.default_rng(0)
    truth = make_truth(tmp_path / 'a.json', random)
    samples = make_predictions(truth, random, 12)
    kept = dict(truth, images=truth['images'][2:7])
    kept['annotations'] = [a for a in truth['annotations'] if 2 <= a['image_id'] < 7]
    (tmp_path / 'b.json').write_text(json.dumps(kept))
    some, _ = evaluate(FastCocoMetric, tmp_path / 'a.json', samples[2:7])
    alone, _ = evaluate(CocoMetric, tmp_path / 'b.json', samples[2:7])
    assert some == pytest.approx(alone, abs=1e-6)
    # Class-wise tables come from mmdet's metric, over the same images.
    tables, _ = evaluate(FastCocoMetric, tmp_path / 'a.json', samples[2:7], classwise=True)
    assert {name: tables[name] for name in alone} == pytest.approx(alone, abs=1e-6) and 'coco/cup_precision' in tables


def test_masks_that_are_not_there_are_missed_at_the_first_image(tmp_path):
    random = np.random.default_rng(0)
    (sample, *_) = make_predictions(make_truth(tmp_path / 'a.json', random), random, 2)
    del sample['pred_instances']['masks']
    metric = FastCocoMetric(ann_file=str(tmp_path / 'a.json'), metric=['bbox', 'segm'])
    with pytest.raises(ValueError, match="no masks, so metric 'segm' cannot"):
        metric.process({}, [sample])


def test_without_the_fast_evaluator_pycocotools_is_used(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    samples = make_predictions(make_truth(tmp_path / 'a.json', random), random, 12)
    fast, _ = evaluate(FastCocoMetric, tmp_path / 'a.json', samples)
    monkeypatch.setattr('fewtokens.openmmlab.coco_metric.find_spec', lambda name: None)
    slow, _ = evaluate(FastCocoMetric, tmp_path / 'a.json', samples)
    assert fast == pytest.approx(slow, abs=1e-9)


def test_matching_is_cocos():
    thresholds = np.array([0.5, 0.75])
    # The second detection finds its object taken and falls to the crowd; of equal overlaps the last is taken.
    overlaps = np.array([[0.8, 0.6, 0.0], [0.8, 0.9, 0.2], [0.0, 0.1, 0.1]])
    crowd = np.array([False, True, False])
    assert match(overlaps, crowd, thresholds).tolist() == [[1, 1], [-1, -1], [0, 0]]
    assert match(np.array([[0.7, 0.7], [0.0, 0.7]]), np.zeros(2, bool), thresholds).tolist() == [[1, 0], [0, 0]]
