"""Published: 338.7 to 161.0 GMACs, 58.07 to 55.08 mIoU."""

_base_ = '../_base_/segmenter_vit-l_pascal-context-480x480.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=8, grid=(15, 15), temperature=50.0))
]
