"""Segmenter ViT-L at 640, all tokens in the first 6 of its 24 blocks."""

_base_ = 'mmseg::segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='SharedUpdate', after=6, grid=(20, 20)))]
