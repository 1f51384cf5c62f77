"""Segmenter ViT-L on Pascal Context, which OpenMMLab has no config of: 60 classes, background among them."""

_base_ = [
    'mmseg::_base_/models/segmenter_vit-b16_mask.py',
    'mmseg::_base_/datasets/pascal_context.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]

crop_size = (480, 480)
model = dict(
    # The base names a ViT-B. To train, convert a ViT-L (tools/convert_checkpoint.py) and name it here.
    pretrained=None,
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size, embed_dims=1024, num_layers=24, num_heads=16),
    decode_head=dict(in_channels=1024, channels=1024, embed_dims=1024, num_heads=16, num_classes=60),
    test_cfg=dict(crop_size=crop_size, stride=(320, 320)),
)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=0.0))
