"""PQ by the stand-in for panopticapi, in mmdet's own metric."""

import json
import pickle
import sys

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from mmdet.structures import INSTANCE_OFFSET

from fewtokens.openmmlab.coco_metric import SafeCocoPanopticMetric
from fewtokens.openmmlab.metrics import collect_statistics
from fewtokens.openmmlab.panoptic_api import (
    CategoryCounts,
    PanopticCounts,
    ids_to_rgb,
    provide_panoptic_api,
    rgb_to_ids,
)

CLASSES = ('cat', 'dog', 'never seen', 'grass', 'sky')
IDS = (2, 5, 6, 8, 11)
THINGS = 3
VOID = len(CLASSES)
SIDE = 24


def write_truth(folder, images):
    """images: of each, segment ids [H, W] with 0 for none, and {id: (label, crowd)}."""
    (folder / 'segments').mkdir()
    annotations = []
    for number, (ids, segments) in enumerate(images):
        cv2.imwrite(str(folder / f'segments/{number}.png'), ids_to_rgb(ids)[..., ::-1])
        listed = [
            dict(id=id, category_id=IDS[label], area=int((ids == id).sum()), bbox=[0, 0, 1, 1], iscrowd=int(crowd))
            for id, (label, crowd) in segments.items()
        ]
        annotations.append(dict(image_id=number, file_name=f'{number}.png', segments_info=listed))
    categories = [dict(id=id, name=name, isthing=int(n < THINGS)) for n, (id, name) in enumerate(zip(IDS, CLASSES))]
    described = [dict(id=n, file_name=f'{n}.jpg', height=SIDE, width=SIDE) for n in range(len(images))]
    content = dict(images=described, annotations=annotations, categories=categories)
    (folder / 'panoptic.json').write_text(json.dumps(content))


def evaluate(folder, predictions, cls=CocoPanopticMetric):
    """predictions: of each image, number of the object * 1000 + label [H, W], VOID for none."""
    metric = cls(ann_file=str(folder / 'panoptic.json'), seg_prefix=str(folder / 'segments'))
    metric.dataset_meta = dict(classes=CLASSES, thing_classes=CLASSES[:THINGS], stuff_classes=CLASSES[THINGS:])
    for number, segments in enumerate(predictions):
        # mmdet's metric writes into what it is given.
        segments = torch.from_numpy(segments.copy() if cls is CocoPanopticMetric else segments)[None]
        sample = dict(img_id=number, img_path=f'{number}.jpg', ori_shape=segments.shape[1:])
        metric.process({}, [dict(sample, pred_panoptic_seg=dict(sem_seg=segments))])
    statistics = collect_statistics(metric)['PQ']
    found = {name.partition('/')[2]: value for name, value in metric.evaluate(len(predictions)).items()}
    return found, statistics


def literal(images, predictions):
    """PQ, SQ and RQ by class, as Kirillov et al. define them: {label: (pq, sq, rq)}."""
    ious, tp, fp, fn = (dict.fromkeys(range(VOID), 0) for _ in range(4))
    for (ids, segments), predicted in zip(images, predictions):
        found = {int(key): predicted == key for key in np.unique(predicted) if key % INSTANCE_OFFSET != VOID}
        matched = set()
        for id, (label, is_crowd) in segments.items():
            if is_crowd:
                continue
            mask, best = ids == id, None
            for key, area in found.items():
                # Unlabelled pixels of a prediction are neither right nor wrong.
                iou = (mask & area).sum() / (mask | (area & (ids != 0))).sum()
                if key % INSTANCE_OFFSET == label and iou > 0.5:
                    best = (key, iou)
            if best is None:
                fn[label] += 1
            else:
                tp[label] += 1
                ious[label] += best[1]
                matched.add(best[0])
        for key, area in found.items():
            label = key % INSTANCE_OFFSET
            own_crowd = np.isin(ids, [id for id, (other, is_crowd) in segments.items() if is_crowd and other == label])
            if key not in matched and (area & ((ids == 0) | own_crowd)).sum() <= area.sum() / 2:
                fp[label] += 1
    return {
        label: (ious[label] / whole, ious[label] / max(tp[label], 1), tp[label] / whole)
        for label in range(VOID)
        if (whole := tp[label] + (fp[label] + fn[label]) / 2)
    }


def stripes(*parts):
    """(rows, value) from top to bottom."""
    return np.concatenate([np.full((rows, SIDE), value) for rows, value in parts])


def test_by_hand(tmp_path):
    cat, grass, sky = 0, 3, 4
    truth = stripes((6, 1), (6, 2), (12, 3))
    write_truth(tmp_path, [(truth, {1: (cat, False), 2: (cat, False), 3: (grass, False)})])
    predicted = stripes((4, 1000 + cat), (2, sky), (4, VOID), (14, 2000 + grass))
    found, _ = evaluate(tmp_path, [predicted])
    # A cat of 4 of its 6 rows, the other missed; of grass in 14 rows 12 are right; sky is invented.
    cat_pq, grass_pq = (2 / 3) / 1.5, 12 / 14
    assert found['PQ'] == pytest.approx(100 * (cat_pq + grass_pq + 0) / 3)
    assert found['SQ'] == pytest.approx(100 * (2 / 3 + 12 / 14 + 0) / 3)
    assert found['RQ'] == pytest.approx(100 * (1 / 1.5 + 1 + 0) / 3)
    assert found['PQ_th'] == pytest.approx(100 * cat_pq) and found['PQ_st'] == pytest.approx(100 * grass_pq / 2)


def test_half_an_overlap_is_no_match(tmp_path):
    write_truth(tmp_path, [(stripes((12, 1), (12, 2)), {1: (0, False), 2: (3, False)})])
    found, _ = evaluate(tmp_path, [stripes((6, 1000), (18, 3))])
    # 6 of 12 rows is just half; 12 of 18 is more.
    assert found['PQ_th'] == 0 and found['PQ_st'] == pytest.approx(100 * 12 / 18)


def test_what_lies_on_crowds_or_on_nothing_is_no_false_alarm(tmp_path):
    write_truth(tmp_path, [(stripes((8, 1), (8, 0), (8, 2)), {1: (0, True), 2: (3, False)})])
    found, statistics = evaluate(tmp_path, [stripes((8, 1000), (8, 2001), (8, 3))])
    assert found['PQ'] == 100 and statistics.fp.sum() == 0 and statistics.tp.sum() == 1
    found, statistics = evaluate(tmp_path, [stripes((8, 1001), (8, 2001), (8, 3))])
    # A dog on a crowd of cats is one.
    assert found['PQ'] == 50 and statistics.fp.sum() == 1


def random_images(random, count=7):
    images, predictions = [], []
    for _ in range(count):
        ids = random.integers(0, 7, (6, 6)).repeat(4, 0).repeat(4, 1)
        kinds = {int(id): (int(random.choice([0, 1, 3, 4])), False) for id in np.unique(ids) if id}
        segments = {id: (label, label < THINGS and random.random() < 0.2) for id, (label, _) in kinds.items()}
        # One crowd a class: what there is in COCO.
        for label in range(THINGS):
            for id in [id for id, (own, crowd) in segments.items() if crowd and own == label][1:]:
                segments[id] = (label, False)
        labels = np.array([VOID] + [segments.get(id, (VOID, 0))[0] for id in range(1, 7)])
        predicted = labels[ids] + INSTANCE_OFFSET * ids * (labels[ids] != VOID)
        noise = random.random((6, 6)).repeat(4, 0).repeat(4, 1)
        predicted = np.where(noise < 0.15, random.choice(predicted.ravel()), predicted)
        images.append((ids, segments))
        predictions.append(np.where(noise > 0.95, VOID, predicted))
    return images, predictions


@pytest.mark.parametrize('seed', range(4))
def test_equals_the_literal_definition(tmp_path, seed):
    images, predictions = random_images(np.random.default_rng(seed))
    write_truth(tmp_path, images)
    found, statistics = evaluate(tmp_path, predictions)
    wanted = literal(images, predictions)
    assert 0 < found['PQ'] < 100 and 2 not in wanted
    for index, name in enumerate(('PQ', 'SQ', 'RQ')):
        for suffix, labels in (('', range(5)), ('_th', range(THINGS)), ('_st', range(THINGS, 5))):
            values = [wanted[label][index] for label in labels if label in wanted]
            assert found[name + suffix] == pytest.approx(100 * np.mean(values), abs=1e-9), name + suffix
    assert statistics.headline(np.ones((1, 7))) == pytest.approx(found['PQ'], abs=1e-9)


def test_an_image_drawn_twice_is_an_image_copied(tmp_path):
    images, predictions = random_images(np.random.default_rng(5), 4)
    write_truth(tmp_path, images)
    _, statistics = evaluate(tmp_path, predictions)
    counts = np.array([2, 0, 1, 3])
    drawn = np.repeat(np.arange(4), counts)
    (tmp_path / 'copied').mkdir()
    write_truth(tmp_path / 'copied', [images[i] for i in drawn])
    copied, _ = evaluate(tmp_path / 'copied', [predictions[i] for i in drawn])
    assert statistics.headline(counts[None]) == pytest.approx(copied['PQ'], abs=1e-9)


def test_predictions_are_left_as_they_are(tmp_path):
    images, predictions = random_images(np.random.default_rng(0))
    write_truth(tmp_path, images)
    before = [segments.copy() for segments in predictions]
    found, statistics = evaluate(tmp_path, predictions, SafeCocoPanopticMetric)
    assert all(np.array_equal(a, b) for a, b in zip(before, predictions)) and any((a == VOID).any() for a in before)
    assert found == evaluate(tmp_path, predictions)[0] and statistics.samples == 7


def test_counts_add_up_and_travel_between_processes():
    one, two = PanopticCounts(), PanopticCounts()
    one[3].tp, one[3].iou, two[3].fn, two[7].fp = 1, 0.75, 2, 1
    one += pickle.loads(pickle.dumps(two))
    assert one[3] == CategoryCounts(0.75, 1, 0, 2) and one[7] == CategoryCounts(0.0, 0, 1, 0)
    categories = {3: dict(isthing=1), 7: dict(isthing=0), 9: dict(isthing=0)}
    mean, each = one.pq_average(categories, None)
    assert mean == dict(pq=0.75 / 2 / 2, sq=0.75 / 2, rq=0.5 / 2, n=2) and each[9] == dict(pq=0.0, sq=0.0, rq=0.0)
    assert one.pq_average({9: dict(isthing=0)}, False)[0] == dict(pq=0, sq=0, rq=0, n=0)


def test_ids_are_colours_and_back():
    ids = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]])
    assert ids_to_rgb(ids)[1, 1].tolist() == [0, 0, 1] and np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)


def test_an_installed_panopticapi_is_left_alone(monkeypatch):
    assert provide_panoptic_api() == getattr(sys.modules['panopticapi'], 'is_fewtokens_stand_in', False)
    monkeypatch.delitem(sys.modules, 'panopticapi')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    assert provide_panoptic_api() is False and 'panopticapi' not in sys.modules
