"""A small panoptic Mask2Former on procedural scenes."""

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
    backbone=_base_.backbone,
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
