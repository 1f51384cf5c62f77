"""MaskDINO Swin-L for COCO's instance segmentation, for its authors' weights with mask-enhanced boxes."""

_base_ = './mask2former_swin-l_coco-instance.py'

custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.openmmlab.maskdino'])
model = dict(
    panoptic_head=dict(
        _delete_=True,
        type='MaskDINOHead',
        in_channels=[192, 384, 768, 1536],
        num_things_classes=80,
        num_stuff_classes=0,
        boxes_from_masks=True,
    ),
    panoptic_fusion_head=dict(type='MaskDINOFusionHead'),
    train_cfg=dict(_delete_=True),
)
