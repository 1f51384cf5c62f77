"""Published: 995.6 to 840.9 GMACs, 79.14 to 78.82 mIoU."""

_base_ = '../_base_/segmenter_vit-l_cityscapes-768x768.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=18, grid=(32, 32), temperature=50.0))
]
