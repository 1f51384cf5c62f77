"""A small panoptic Mask2Former on procedural scenes, on a backbone that was trained on their semantic segmentation.

python tools/make_scenes.py data/scenes --training 6000 --validation 200
python tools/make_scenes.py data/scenes_coco --format coco --training 6000 --validation 200
python tools/train.py configs/demo/segformer_swin_scenes.py
python tools/train.py configs/demo/mask2former_swin_scenes-panoptic.py

The weights beside this are in half precision.
"""

_base_ = ['../_base_/swin_scenes.py']
default_scope = 'mmdet'

width = 64
heads = 4
levels = 2
things = stuff = len(_base_.classes)
positions = dict(num_feats=width // 2, normalize=True)
attention = dict(embed_dims=width, num_heads=heads, batch_first=True)
ffn = dict(embed_dims=width, feedforward_channels=4 * width, num_fcs=2, act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    type='Mask2Former',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.5] * 3,
        std=[127.5] * 3,
        bgr_to_rgb=True,
        pad_mask=True,
        pad_seg=True,
        pad_size_divisor=32,
    ),
    # Most of it stays as trained on semantic segmentation, which makes training several times cheaper.
    backbone=dict(**_base_.backbone, frozen_stages=2),
    panoptic_head=dict(
        type='Mask2FormerHead',
        in_channels=_base_.channels,
        strides=[4, 8, 16],
        feat_channels=width,
        out_channels=width,
        num_things_classes=things,
        num_stuff_classes=stuff,
        num_queries=40,
        num_transformer_feat_level=levels,
        pixel_decoder=dict(
            type='MSDeformAttnPixelDecoder',
            num_outs=levels,
            norm_cfg=dict(type='GN', num_groups=16),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(**attention, num_levels=levels), ffn_cfg=ffn)),
            positional_encoding=positions,
        ),
        positional_encoding=positions,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=4,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
            init_cfg=None,
        ),
        loss_cls=dict(
            type='CrossEntropyLoss', loss_weight=2.0, reduction='mean', class_weight=[1.0] * (things + stuff) + [0.1]
        ),
        loss_mask=dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='mean', loss_weight=5.0),
        loss_dice=dict(type='DiceLoss', naive_dice=True, eps=1.0, reduction='mean', loss_weight=5.0),
    ),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead', num_things_classes=things, num_stuff_classes=stuff, loss_panoptic=None
    ),
    train_cfg=dict(
        num_points=1024,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=2.0),
                dict(type='CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0),
            ],
        ),
        sampler=dict(type='MaskPseudoSampler'),
    ),
    test_cfg=dict(panoptic_on=True, semantic_on=False, instance_on=False, iou_thr=0.8, filter_low_score=True),
)

_scenes = dict(
    type='CocoPanopticDataset',
    data_root='data/scenes_coco',
    metainfo=dict(
        thing_classes=_base_.classes,
        stuff_classes=[f'{name}-background' for name in _base_.classes],
        classes=[*_base_.classes, *(f'{name}-background' for name in _base_.classes)],
        palette=_base_.palette * 2,
    ),
)
_meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
_annotations = dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **_scenes,
        ann_file='annotations/panoptic_training.json',
        data_prefix=dict(img='training/', seg='annotations/panoptic_training/'),
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
        ann_file='annotations/panoptic_validation.json',
        data_prefix=dict(img='validation/', seg='annotations/panoptic_validation/'),
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
    type='CocoPanopticMetric',
    ann_file='data/scenes_coco/annotations/panoptic_validation.json',
    seg_prefix='data/scenes_coco/annotations/panoptic_validation/',
)

load_from = 'work_dirs/segformer_swin_scenes/iter_1000.pth'
steps = 2000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
param_scheduler = [dict(type='OneCycleLR', eta_max=6e-4, total_steps=steps, by_epoch=False)]
