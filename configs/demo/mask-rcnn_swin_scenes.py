"""A small Mask R-CNN on procedural scenes, on the backbone that was trained on their semantic segmentation.

python tools/make_scenes.py data/scenes --training 6000 --validation 200
python tools/make_scenes.py data/scenes_coco --format coco --training 6000 --validation 200
python tools/train.py configs/demo/segformer_swin_scenes.py
python tools/train.py configs/demo/mask-rcnn_swin_scenes.py

The weights beside this are in half precision.
"""

_base_ = ['../_base_/swin_scenes.py']
default_scope = 'mmdet'

width = 64
norm_cfg = dict(type='GN', num_groups=16)
roi_layer = dict(type='RoIAlign', sampling_ratio=2)
strides = [4, 8, 16]
num_classes = len(_base_.classes)
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    # Most of it stays as trained on semantic segmentation, which makes training several times cheaper.
    backbone=dict(**_base_.backbone, frozen_stages=2),
    neck=dict(type='FPN', in_channels=_base_.channels, out_channels=width, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        type='RPNHead',
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(type='AnchorGenerator', scales=[5], ratios=[0.5, 1.0, 2.0], strides=[*strides, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(**roi_layer, output_size=7),
            out_channels=width,
            featmap_strides=strides,
            finest_scale=28,
        ),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=width,
            fc_out_channels=256,
            roi_feat_size=7,
            num_classes=num_classes,
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
            reg_class_agnostic=True,
            loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=dict(type='L1Loss'),
        ),
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(**roi_layer, output_size=14),
            out_channels=width,
            featmap_strides=strides,
            finest_scale=28,
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            class_agnostic=True,
            norm_cfg=norm_cfg,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type='RandomSampler', num=128, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=300, max_per_img=200, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5),
            sampler=dict(type='RandomSampler', num=64, pos_fraction=0.25),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=60, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=40, mask_thr_binary=0.5),
    ),
)

_scenes = dict(
    type='CocoDataset',
    data_root='data/scenes_coco',
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
_annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_scenes,
        ann_file='annotations/instances_training.json',
        data_prefix=dict(img='training/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            _annotations,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs', meta_keys=_meta),
        ],
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_scenes,
        ann_file='annotations/instances_validation.json',
        data_prefix=dict(img='validation/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(256, 256), keep_ratio=True),
            _annotations,
            dict(type='PackDetInputs', meta_keys=_meta),
        ],
    ),
)
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(
    type='CocoMetric', ann_file='data/scenes_coco/annotations/instances_validation.json', metric=['bbox', 'segm']
)

load_from = 'work_dirs/segformer_swin_scenes/iter_1000.pth'
steps = 2000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
param_scheduler = [dict(type='OneCycleLR', eta_max=1e-3, total_steps=steps, by_epoch=False)]
