"""Published: 659.0 to 309.4 GMACs, 51.82 to 47.96 mIoU."""

_base_ = '../_base_/segmenter_vit-l_ade20k-640x640.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=8, grid=(20, 20), temperature=50.0))
]
