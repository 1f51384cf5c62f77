"""Depth of rooms by a light head on a frozen DINOv2 ViT-S/14, trained on a CPU in minutes; tested at 32 x 32 tokens.

python tools/make_scenes.py data/rooms --format depth --training 120 --validation 60 --size 448
python tools/read_dinov2.py work_dirs/real/dinov2_vits14.pth
python tools/train.py configs/demo/dinov2_vit-s_rooms.py
"""

custom_imports = dict(
    imports=[
        'fewtokens.openmmlab',
        'fewtokens.openmmlab.depth_data',
        'fewtokens.openmmlab.depth_metric',
        'fewtokens.openmmlab.depth_models',
        'fewtokens.openmmlab.frozen_backbone',
    ]
)
default_scope = 'mmseg'

model = dict(
    type='FramedDepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=14,
        # What padding adds has no depth.
        seg_pad_val=0,
        test_cfg=dict(size_divisor=14),
    ),
    backbone=dict(
        type='FrozenTIMMBackbone',
        model_name='vit_small_patch14_dinov2',
        pretrained=False,
        img_size=518,
        dynamic_img_size=True,
        out_indices=(2, 5, 8, 11),
    ),
    decode_head=dict(
        type='DepthHead',
        min_depth=0.5,
        max_depth=40.0,
        in_channels=[384] * 4,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=128,
        num_convs=1,
        kernel_size=3,
        concat_input=False,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='SiLogLoss'),
    ),
    test_cfg=dict(mode='whole'),
)

_rooms = dict(type='DepthDataset', data_root='data/rooms')
_depth = dict(type='LoadDepthAnnotation', depth_rescale_factor=1 / 256)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_rooms,
        data_prefix=dict(img_path='images/training', depth_map_path='depth/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            # The loss is taken at the size of the depth map.
            dict(type='Resize', scale=(280, 280)),
            _depth,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackDepthInputs'),
        ],
    ),
)
val_dataloader = test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_rooms,
        data_prefix=dict(img_path='images/validation', depth_map_path='depth/validation'),
        pipeline=[dict(type='LoadImageFromFile'), _depth, dict(type='PackDepthInputs')],
    ),
)
val_evaluator = test_evaluator = dict(type='MonocularDepthMetric', min_depth=0.5, max_depth=40.0)
val_cfg = dict()
test_cfg = dict()

steps = 160
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
optim_wrapper = dict(
    type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [dict(type='OneCycleLR', eta_max=2e-3, total_steps=steps, by_epoch=False)]
load_from = 'work_dirs/real/dinov2_vits14.pth'

randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=steps),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
