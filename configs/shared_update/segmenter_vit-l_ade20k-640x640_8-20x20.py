"""Segmenter ViT-L at 640, all tokens in the first 8 of its 24 blocks."""

_base_ = '../_base_/segmenter_vit-l_ade20k-640x640.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='SharedUpdate', after=8, grid=(20, 20)))]
