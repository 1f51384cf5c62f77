"""Segmenter ViT-L on ADE20K as it was published: windows of 640 side by side, where OpenMMLab's lie 608 apart."""

_base_ = 'mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py'

model = dict(test_cfg=dict(stride=(640, 640)))
