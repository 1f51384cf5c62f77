"""Tiny detectors with random weights, and scenes in COCO's layout for them."""

import json
from pathlib import Path

import torch
from mmengine.config import Config

DEMO = Path(__file__).parents[2] / 'configs/demo'
BACKBONE = dict(embed_dims=16, depths=(1, 3, 1), num_heads=(1, 2, 4), window_size=4)
CHANNELS = [16, 32, 64]


def write_coco_scenes(folder: Path, count: int = 5, size: int = 64) -> None:
    """Scenes with one kind of things and one kind of background: random weights are right now and then."""
    from demo.scenes.coco import write_coco

    write_coco(folder, dict(validation=count), size=size)
    for kind in ('instances', 'panoptic'):
        path = folder / f'annotations/{kind}_validation.json'
        content = json.loads(path.read_text())
        content['categories'] = [dict(id=1, name='object', isthing=1), dict(id=2, name='ground', isthing=0)]
        for annotation in content['annotations']:
            for segment in annotation.get('segments_info', [annotation]):
                segment['category_id'] = 1 if segment['category_id'] <= 10 else 2
        path.write_text(json.dumps(content))


def write_coco_config(folder: Path, data: Path, panoptic: bool = False) -> Path:
    """The demo's Mask R-CNN, or its panoptic Mask2Former, as small as can be."""
    annotations = f'{data}/annotations/{"panoptic" if panoptic else "instances"}_validation'
    if panoptic:
        model, metainfo = _mask2former()
        prefix = dict(img='validation/', seg='annotations/panoptic_validation/')
        evaluator = dict(type='CocoPanopticMetric', ann_file=f'{annotations}.json', seg_prefix=f'{annotations}/')
        load = dict(type='LoadPanopticAnnotations')
    else:
        model, metainfo = _mask_rcnn()
        prefix = dict(img='validation/')
        evaluator = dict(type='CocoMetric', ann_file=f'{annotations}.json', metric=['bbox', 'segm'])
        load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        load,
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    dataset = dict(
        type='CocoPanopticDataset' if panoptic else 'CocoDataset',
        data_root=f'{data}/',
        ann_file=f'annotations/{Path(annotations).name}.json',
        data_prefix=prefix,
        metainfo=metainfo,
        test_mode=True,
        pipeline=pipeline,
    )
    config = dict(
        default_scope='mmdet',
        custom_imports=dict(imports=['fewtokens.openmmlab']),
        model=model,
        test_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
        ),
        test_evaluator=evaluator,
        test_cfg=dict(),
    )
    path = folder / ('panoptic.py' if panoptic else 'detector.py')
    Config(dict(config, work_dir=str(folder / path.stem))).dump(path)
    return path


def _mask_rcnn() -> tuple[dict, dict]:
    model = Config.fromfile(DEMO / 'mask-rcnn_swin_scenes.py').model
    model.backbone.update(BACKBONE)
    model.neck.in_channels = CHANNELS
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = 1
    # A mask is its whole box.
    model.test_cfg.rcnn.update(score_thr=0.0, mask_thr_binary=0.0, max_per_img=15)
    return model.to_dict(), dict(classes=('object',), palette=[[220, 20, 60]])


def _mask2former() -> tuple[dict, dict]:
    model = Config.fromfile(DEMO / 'mask2former_swin_scenes-panoptic.py').model
    model.backbone.update(BACKBONE)
    model.panoptic_head.in_channels = CHANNELS
    model.panoptic_head.loss_cls.class_weight = [1.0, 1.0, 0.1]
    for head in (model.panoptic_head, model.panoptic_fusion_head):
        head.num_things_classes = head.num_stuff_classes = 1
    model.test_cfg.update(object_mask_thr=0.0, iou_thr=0.0, filter_low_score=False)
    classes = dict(classes=('object', 'ground'), thing_classes=('object',), stuff_classes=('ground',))
    return model.to_dict(), dict(classes, palette=[[220, 20, 60], [30, 140, 70]])


def write_checkpoint(config_file: Path) -> Path:
    """Random weights of a config's model, beside the config."""
    from fewtokens.openmmlab.config import load_config
    from fewtokens.openmmlab.model import build_model

    torch.manual_seed(0)
    config = load_config(config_file)
    path = config_file.with_suffix('.pth')
    meta = dict(dataset_meta=dict(config.test_dataloader.dataset.get('metainfo', {})))
    torch.save(dict(state_dict=build_model(config).state_dict(), meta=meta), path)
    return path
