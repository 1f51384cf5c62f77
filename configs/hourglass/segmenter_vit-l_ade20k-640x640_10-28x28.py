"""Published: 659.0 to 443.8 GMACs, 51.82 to 51.56 mIoU."""

_base_ = '../_base_/segmenter_vit-l_ade20k-640x640.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=10, grid=(28, 28), temperature=50.0))
]
