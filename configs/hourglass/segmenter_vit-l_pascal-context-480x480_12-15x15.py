"""Published: 338.7 to 201.3 GMACs, 58.07 to 57.85 mIoU."""

_base_ = '../_base_/segmenter_vit-l_pascal-context-480x480.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=12, grid=(15, 15), temperature=50.0))
]
