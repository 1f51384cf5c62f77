"""Segmenter ViT-L, for any data set."""

_base_ = 'mmseg::_base_/models/segmenter_vit-b16_mask.py'

model = dict(
    # The base names a ViT-B. To train, convert a ViT-L (tools/convert_checkpoint.py) and name it here.
    pretrained=None,
    backbone=dict(embed_dims=1024, num_layers=24, num_heads=16),
    decode_head=dict(in_channels=1024, channels=1024, embed_dims=1024, num_heads=16),
)
