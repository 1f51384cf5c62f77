"""A small Segmenter on procedural scenes, second phase: whole scenes, from the checkpoint of the first phase.

python tools/make_scenes.py data/scenes --training 6000 --validation 200
python tools/train.py configs/demo/segmenter_scenes-128x128.py
python tools/train.py configs/demo/segmenter_scenes-256x256.py
"""

custom_imports = dict(imports=['fewtokens.openmmlab'])
default_scope = 'mmseg'

classes = ('brick', 'grass', 'gravel', 'coffee', 'chelsea', 'hubble', 'rocket', 'astronaut', 'flower', 'china')
palette = [
    [178, 34, 34], [60, 160, 60], [130, 130, 130], [139, 90, 43], [244, 164, 96],
    [25, 25, 112], [70, 130, 180], [255, 140, 0], [255, 215, 0], [200, 60, 180],
]  # fmt: skip
norm_cfg = dict(type='LN', eps=1e-6)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size=(256, 256), seg_pad_val=255
    ),
    backbone=dict(
        type='VisionTransformer',
        img_size=(256, 256),
        patch_size=8,
        embed_dims=128,
        num_layers=12,
        num_heads=4,
        final_norm=True,
        norm_cfg=norm_cfg,
        interpolate_mode='bicubic',
    ),
    decode_head=dict(
        type='SegmenterMaskTransformerHead',
        in_channels=128,
        channels=128,
        embed_dims=128,
        num_layers=1,
        num_heads=4,
        num_classes=len(classes),
        drop_path_rate=0.0,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)

_scenes = dict(
    type='BaseSegDataset',
    data_root='data/scenes',
    reduce_zero_label=True,
    metainfo=dict(classes=classes, palette=palette),
)
_annotations = dict(type='LoadAnnotations', reduce_zero_label=True)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_scenes,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            _annotations,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    _annotations,
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_scenes,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_cfg = dict()
test_cfg = dict()

steps = 700
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='OneCycleLR', eta_max=5e-4, total_steps=steps, by_epoch=False)]
# The host's own attention, fused: training is faster and the weights are what they would be.
custom_hooks = [dict(type='FewTokensHook', sdpa=True)]

load_from = 'work_dirs/segmenter_scenes-128x128/iter_1400.pth'
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=steps),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(by_epoch=False)
