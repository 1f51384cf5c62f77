"""The Swin backbone of the demo's detectors, first: semantic segmentation of the same scenes, which teaches it sooner.

python tools/make_scenes.py data/scenes --training 6000 --validation 200
python tools/train.py configs/demo/segformer_swin_scenes.py
"""

_base_ = ['../_base_/swin_scenes.py']
default_scope = 'mmseg'

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size=(128, 128), seg_pad_val=255
    ),
    backbone=_base_.backbone,
    decode_head=dict(
        type='SegformerHead',
        in_channels=_base_.channels,
        in_index=[0, 1, 2],
        channels=64,
        num_classes=len(_base_.classes),
        dropout_ratio=0.0,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    test_cfg=dict(mode='whole'),
)

_scenes = dict(
    type='BaseSegDataset',
    data_root='data/scenes',
    reduce_zero_label=True,
    metainfo=dict(classes=_base_.classes, palette=_base_.palette),
)
_annotations = dict(type='LoadAnnotations', reduce_zero_label=True)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_scenes,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            _annotations,
            dict(type='RandomCrop', crop_size=(128, 128)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_scenes,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[dict(type='LoadImageFromFile'), _annotations, dict(type='PackSegInputs')],
    ),
)
val_dataloader = test_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])

steps = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
param_scheduler = [dict(type='OneCycleLR', eta_max=1e-3, total_steps=steps, by_epoch=False)]
