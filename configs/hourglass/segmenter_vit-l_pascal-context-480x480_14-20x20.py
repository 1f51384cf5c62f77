"""Published: 338.7 to 251.2 GMACs, 58.07 to 58.27 mIoU."""

_base_ = '../_base_/segmenter_vit-l_pascal-context-480x480.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=14, grid=(20, 20), temperature=50.0))
]
