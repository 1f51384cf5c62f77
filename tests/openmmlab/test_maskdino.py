"""MaskDINO on mmdet's parts: the published network and answers, and that it learns."""

import pytest
import torch
from coco import CHANNELS, write_coco_config, write_coco_scenes
from maskdino_literal import PublishedHead
from mmdet.models.layers import CdnQueryGenerator
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.structures.mask import BitmapMasks
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

import fewtokens
from fewtokens.checkpoints.keys import convert_keys
from fewtokens.measure.macs import count_macs
from fewtokens.measure.variants import Variant
from fewtokens.openmmlab import maskdino
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.maskdino_losses import Found, MatchedLosses, boxes_around, denoised
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.test_set import TestSet

SHAPE = dict(feat_channels=32, feedforward_channels=48, num_heads=4, num_levels=4, num_queries=7)
PUBLISHED = dict(width=32, inner=48, heads=4, levels=4, queries=7)


@pytest.mark.parametrize('boxes_from_masks', [False, True])
@torch.no_grad()
def test_finds_what_the_published_network_finds(boxes_from_masks):
    torch.manual_seed(0)
    layers = dict(encoder_layers=2, decoder_layers=2)
    published = PublishedHead([8, 12, 16], 5, **PUBLISHED, **layers, boxes_from_masks=boxes_from_masks)
    for parameter in published.parameters():
        nn.init.normal_(parameter, std=0.3)
    head = maskdino.MaskDINOHead(
        [8, 12, 16], 5, num_encoder_layers=2, num_decoder_layers=2, boxes_from_masks=boxes_from_masks, **SHAPE
    )
    weights = convert_keys({f'sem_seg_head.{name}': value for name, value in published.state_dict().items()})
    head.load_state_dict({name.removeprefix('panoptic_head.'): value for name, value in weights.items()})
    features = [torch.randn(2, channels, 16 >> i, 24 >> i) for i, channels in enumerate((8, 12, 16))]
    for ours, theirs in zip(head.eval()(features), published(features), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert theirs.std() > 0.01


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Tiny scenes of one kind of things and one of background, and the demo's panoptic Mask2Former with other heads."""
    folder = tmp_path_factory.mktemp('scenes')
    write_coco_scenes(folder, count=2)
    config = load_config(write_coco_config(folder, folder, panoptic=True))
    kinds = dict(num_things_classes=1, num_stuff_classes=1)
    layers = dict(num_encoder_layers=1, num_decoder_layers=2)
    config.model.panoptic_head = dict(type='MaskDINOHead', in_channels=CHANNELS, **kinds, **layers, **SHAPE)
    config.model.panoptic_fusion_head.type = 'MaskDINOFusionHead'
    config.model.train_cfg = dict(num_points=64)
    config.model.test_cfg.instance_on = True
    return config


def test_learns_from_scenes(config):
    torch.manual_seed(0)
    model = build_model(config).train()
    loader = Runner.build_dataloader({**config.test_dataloader, 'batch_size': 2})
    data = model.data_preprocessor(next(iter(loader)), True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    totals = []
    for _ in range(6):
        losses = model(**data, mode='loss')
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    # Of the chosen queries, and of both kinds of them before the decoder and after each of its two layers.
    assert len(losses) == 5 * (1 + 2 * 3) and totals[-1] < 0.85 * totals[0]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)


def test_is_evaluated_on_scenes_with_a_plugin(config, tmp_path):
    torch.manual_seed(0)
    model = build_model(config)
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    tests = TestSet(config, str(path), tmp_path, batch=2)
    reducer = fewtokens.Hourglass(after=3, grid=2)
    host, clustered = (tests.evaluate(model, Variant(*variant)) for variant in [('host',), ('h', reducer)])
    assert host.metrics['PQ'] > 0 and clustered.metrics.keys() == host.metrics.keys()
    image = torch.randn(1, 3, 64, 64)
    whole = count_macs(model, image)
    with fewtokens.attach(model, reducer):
        assert count_macs(model, image) < whole
    assert count_macs(model, image) == whole


def blobs(*corners):
    """Logits of masks of a 8 x 8 picture: 3 within a rectangle, -3 without."""
    masks = torch.full((len(corners), 8, 8), -3.0)
    for mask, (left, top, right, bottom) in zip(masks, corners):
        mask[top:bottom, left:right] = 3
    return masks


def fusion(**test_cfg):
    return maskdino.MaskDINOFusionHead(num_things_classes=2, num_stuff_classes=1, test_cfg=test_cfg)


def test_instances_are_queries_and_classes_by_score():
    scores = torch.tensor([[0.9, 0.6, 0.95], [0.1, 0.8, 0.2]]).logit()
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 1.0, 1.0]])
    masks = blobs((0, 0, 4, 4), (2, 4, 8, 8))
    found = fusion(max_per_image=4).instance_postprocess((scores, boxes), masks)
    # Of the four best one is of stuff; a mask is as sure of itself as it is on its own pixels.
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.6]) * torch.tensor(3.0).sigmoid())
    assert found.labels.tolist() == [0, 1, 1]
    assert found.bboxes.tolist() == [[0, 0, 4, 4], [2, 4, 8, 8], [0, 0, 4, 4]]
    assert torch.equal(found.masks, masks[[0, 1, 0]] > 0)


def test_pixels_go_to_queries_that_are_sure_enough_of_one_class():
    """A score must pass 0.25 before it is sharpened; a query of two equal classes then gives way to one of a class."""
    scores = torch.tensor([[0.9, 0.9, 0.0], [0.8, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.0, 0.7]]).logit()
    masks = blobs((0, 0, 8, 4), (0, 0, 8, 5), (0, 6, 8, 8), (0, 3, 8, 8))
    seg = fusion(iou_thr=0.5, filter_low_score=True).panoptic_postprocess((scores, torch.rand(4, 4)), masks).sem_seg[0]
    assert seg[:5].unique().tolist() == [1000] and seg[5:].unique().tolist() == [2]
    strict = fusion(iou_thr=0.5, filter_low_score=True, object_mask_thr=0.75)
    seg = strict.panoptic_postprocess((scores, torch.rand(4, 4)), masks).sem_seg[0]
    assert seg[:5].unique().tolist() == [1000] and seg[5:].unique().tolist() == [3]  # nothing: one more than classes
    nothing = strict.panoptic_postprocess((scores[2:3], torch.rand(1, 4)), masks[2:3])
    assert nothing.sem_seg.unique().tolist() == [3]


def test_boxes_are_parts_of_the_picture_without_padding():
    head = maskdino.MaskDINOHead([32, 32], 2, **SHAPE | dict(num_levels=2))
    boxes = torch.tensor([0.25, 0.25, 0.5, 0.5]).expand(2, 7, 4)
    head.forward = lambda x: Found(torch.zeros(2, 7, 2), torch.zeros(2, 7, 8, 16), boxes)
    samples = [
        DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=(32, 64))) for size in ((32, 64), (16, 40))
    ]
    answers, masks = head.predict(None, samples)
    assert masks.shape == (2, 7, 32, 64)
    assert [box[0].tolist() for _, box in answers] == [[0, 0, 0.5, 0.5], [0, 0, pytest.approx(0.8), 1]]


def test_a_box_goes_around_all_of_a_mask():
    masks = torch.stack([*blobs((2, 1, 4, 7), (7, 7, 8, 8)), torch.full((8, 8), -1.0)]) > 0
    assert boxes_around(masks).tolist() == [[1 / 4, 1 / 8, 1 / 2, 7 / 8], [7 / 8, 7 / 8, 1, 1], [0] * 4]


def target_of(labels, corners):
    masks = (blobs(*corners) > 0).numpy().astype('uint8')
    there = InstanceData(labels=torch.tensor(labels), masks=BitmapMasks(masks, 8, 8))
    return MatchedLosses(3, 2, num_points=16).target(DetDataSample(gt_instances=there))


def test_what_is_found_exactly_costs_least_and_stuff_needs_no_box():
    torch.manual_seed(0)
    losses = MatchedLosses(3, num_things=2, num_points=64)
    target = target_of([1, 0], [(0, 0, 4, 4), (4, 0, 8, 8)])
    assert target.gt_instances.bboxes.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0, 1, 1]]
    boxes = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.9, 0.9, 0.1, 0.1], [0.25, 0.25, 0.5, 0.5]])
    scores = torch.full((3, 3), -9.0)
    scores[0, 0] = scores[2, 1] = 9
    masks = torch.cat([blobs((4, 0, 8, 8), (0, 0, 1, 1), (0, 0, 4, 4))]) * 4
    found = Found(scores[None], masks[None], boxes[None])
    assert [part.tolist() for part in losses.match(found, [target])[0]] == [[0, 2], [1, 0]]
    right = losses(found, [target])
    wrong = losses(found, [target], [(torch.tensor([1]), torch.tensor([0]))])
    assert all(right[name] < wrong[name] / 2 for name in right) and right['loss_bbox'] == 0
    stuff = target_of([2], [(0, 0, 4, 4)])
    wrong = losses(found, [stuff], [(torch.tensor([1]), torch.tensor([0]))])
    assert wrong['loss_bbox'] == wrong['loss_iou'] == 0 and wrong['loss_mask'] > 1


def test_noisy_queries_are_paired_with_what_they_were_made_of():
    targets = [target_of([1, 0], [(0, 0, 4, 4), (4, 0, 8, 8)]), target_of([2], [(0, 0, 8, 8)])]
    make = CdnQueryGenerator(3, 4, 5, 1e-9, 1e-9, dict(num_dn_queries=6))
    labels, boxes, _, noise = make(targets)
    pairs = denoised(targets, noise, boxes.device)
    assert [len(queries) for queries, _ in pairs] == [6, 3]
    for i, (queries, objects) in enumerate(pairs):
        there = targets[i].gt_instances[objects]
        assert torch.equal(labels[i, queries], make.label_embedding(there.labels))
        own = bbox_cxcywh_to_xyxy(boxes[i, queries].sigmoid())
        torch.testing.assert_close(own, there.bboxes, atol=2e-3, rtol=0)


def test_fewer_levels_than_maps_are_refused():
    with pytest.raises(ValueError, match=r'num_levels=2 must be at least 3, the number of in_channels'):
        maskdino.MaskDINOHead([8, 12, 16], 5, **SHAPE | dict(num_levels=2))
