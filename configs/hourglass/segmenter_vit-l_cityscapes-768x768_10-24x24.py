"""Published: 995.6 to 529.6 GMACs, 79.14 to 76.20 mIoU."""

_base_ = '../_base_/segmenter_vit-l_cityscapes-768x768.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=10, grid=(24, 24), temperature=50.0))
]
