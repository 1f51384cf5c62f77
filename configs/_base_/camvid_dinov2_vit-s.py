"""CamVid at 504 x 672 pixels through a DINOv2 ViT-S/14 of timm and a light head: 36 x 48 tokens.

Whoever inherits it adds a schedule and says whether the backbone is tuned.
"""

custom_imports = dict(
    imports=[
        'fewtokens.openmmlab',
        'fewtokens.openmmlab.camvid',
        'fewtokens.openmmlab.frozen_backbone',
        'fewtokens.openmmlab.normed_fcn_head',
    ]
)
default_scope = 'mmseg'

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=14,
        test_cfg=dict(size_divisor=14),
        seg_pad_val=255,
    ),
    backbone=dict(
        type='TIMMBackbone',
        model_name='vit_small_patch14_dinov2',
        pretrained=False,
        img_size=518,
        dynamic_img_size=True,
        out_indices=(2, 5, 8, 11),
    ),
    decode_head=dict(
        type='NormedFCNHead',
        in_channels=[384] * 4,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=128,
        num_convs=1,
        kernel_size=3,
        concat_input=False,
        norm_cfg=dict(type='BN'),
        num_classes=11,
        align_corners=False,
        # Thin and rare things count as much in mIoU as roads: one over the square root of how often a class is seen.
        loss_decode=dict(
            type='CrossEntropyLoss',
            class_weight=[0.88, 0.74, 3.75, 0.64, 1.69, 1.15, 3.53, 3.49, 1.52, 4.58, 6.83],
        ),
    ),
    test_cfg=dict(mode='whole'),
)

_camvid = dict(type='CamVidDataset', data_root='data/camvid')
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_camvid,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(672, 504), ratio_range=(0.75, 1.75), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(378, 504)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(672, 504), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
_test = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = dict(
    **_test,
    dataset=dict(**_camvid, data_prefix=dict(img_path='val', seg_map_path='valannot'), pipeline=test_pipeline),
)
test_dataloader = dict(
    **_test,
    dataset=dict(**_camvid, data_prefix=dict(img_path='test', seg_map_path='testannot'), pipeline=test_pipeline),
)
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = dict()
test_cfg = dict()

randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100000),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
