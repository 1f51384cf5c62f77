"""MaskDINO Swin-L for COCO's panoptic segmentation, for its authors' weights."""

_base_ = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'

custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.openmmlab.maskdino'])
model = dict(
    panoptic_head=dict(
        _delete_=True,
        type='MaskDINOHead',
        in_channels=[192, 384, 768, 1536],
        num_things_classes=80,
        num_stuff_classes=53,
    ),
    panoptic_fusion_head=dict(type='MaskDINOFusionHead'),
    train_cfg=dict(_delete_=True),
    test_cfg=dict(object_mask_thr=0.25),
)
