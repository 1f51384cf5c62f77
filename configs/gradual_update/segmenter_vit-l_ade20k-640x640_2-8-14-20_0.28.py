"""Segmenter ViT-L at 640, tokens merged at four places until 0.28 of them are left."""

_base_ = '../_base_/segmenter_vit-l_ade20k-640x640.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='GradualUpdate', after=(2, 8, 14, 20), keep=0.28))
]
