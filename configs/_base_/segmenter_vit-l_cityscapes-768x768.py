"""Segmenter ViT-L on Cityscapes, which OpenMMLab has no config of: windows of 768, 512 apart."""

_base_ = [
    './segmenter_vit-l_mask.py',
    'mmseg::_base_/datasets/cityscapes_768x768.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]

crop_size = (768, 768)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size),
    decode_head=dict(num_classes=19),
    test_cfg=dict(crop_size=crop_size, stride=(512, 512)),
)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0))
