"""Segmenter ViT-L on Pascal Context, which OpenMMLab has no config of: 60 classes, background among them."""

_base_ = [
    './segmenter_vit-l_mask.py',
    'mmseg::_base_/datasets/pascal_context.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]

crop_size = (480, 480)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size),
    decode_head=dict(num_classes=60),
    test_cfg=dict(crop_size=crop_size, stride=(320, 320)),
)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=0.0))
