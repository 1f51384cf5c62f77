"""A small MaskDINO on small procedural scenes, on the demo's trained backbone: a trial, with no weights beside it.

python tools/make_scenes.py data/scenes_coco --format coco --size 128 --training 1000 --validation 60
python tools/train.py configs/demo/maskdino_swin_scenes.py

Mask AP of the held-out scenes is 1 after 200 steps, 5 after 400 and 6 after 600: it would go on.
"""

_base_ = './mask-rcnn_swin_scenes.py'

custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.openmmlab.maskdino'])
model = dict(
    _delete_=True,
    type='Mask2Former',
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    panoptic_head=dict(
        type='MaskDINOHead',
        in_channels={{_base_.channels}},
        num_things_classes={{_base_.num_classes}},
        feat_channels=64,
        feedforward_channels=256,
        num_heads=4,
        num_levels=4,
        num_encoder_layers=1,
        num_decoder_layers=3,
        num_queries=40,
        boxes_from_masks=True,
    ),
    panoptic_fusion_head=dict(
        type='MaskDINOFusionHead', num_things_classes={{_base_.num_classes}}, num_stuff_classes=0
    ),
    train_cfg=dict(num_points=1024),
    test_cfg=dict(panoptic_on=False, instance_on=True, max_per_image=40),
)

test_dataloader = dict(
    dataset=dict(pipeline=[step for step in _base_.test_dataloader.dataset.pipeline if step['type'] != 'Resize'])
)
val_dataloader = test_dataloader
# Of the trained Mask R-CNN only the backbone fits.
load_from = 'configs/demo/mask-rcnn_swin_scenes.pth'
steps = 600
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=100)
param_scheduler = [dict(type='OneCycleLR', eta_max=6e-4, total_steps=steps, by_epoch=False)]
