"""Mask2Former Swin-L for panoptic segmentation of ADE20K, which mmdet has for COCO only: for evaluation."""

_base_ = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'

num_things_classes, num_stuff_classes = 100, 50
counts = dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes)
model = dict(
    panoptic_head=dict(loss_cls=dict(class_weight=[1.0] * (num_things_classes + num_stuff_classes) + [0.1]), **counts),
    panoptic_fusion_head=counts,
)
data_root = 'data/ADEChallengeData2016/'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2560, 640), keep_ratio=True),
    dict(type='LoadPanopticAnnotations'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
test_dataloader = dict(
    dataset=dict(
        type='ADE20KPanopticDataset',
        data_root=data_root,
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(_delete_=True, img='images/validation/', seg='ade20k_panoptic_val/'),
        pipeline=test_pipeline,
    )
)
val_dataloader = test_dataloader
test_evaluator = [
    dict(
        type='CocoPanopticMetric',
        ann_file=data_root + 'ade20k_panoptic_val.json',
        seg_prefix=data_root + 'ade20k_panoptic_val/',
    )
]
val_evaluator = test_evaluator
