"""Segmenter ViT-L on Cityscapes, which OpenMMLab has no config of: windows of 768, 512 apart."""

_base_ = [
    'mmseg::_base_/models/segmenter_vit-b16_mask.py',
    'mmseg::_base_/datasets/cityscapes_768x768.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]

crop_size = (768, 768)
model = dict(
    # The base names a ViT-B. To train, convert a ViT-L (tools/convert_checkpoint.py) and name it here.
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size, embed_dims=1024, num_layers=24, num_heads=16),
    decode_head=dict(in_channels=1024, channels=1024, embed_dims=1024, num_heads=16, num_classes=19),
    test_cfg=dict(crop_size=crop_size, stride=(512, 512)),
)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0))
