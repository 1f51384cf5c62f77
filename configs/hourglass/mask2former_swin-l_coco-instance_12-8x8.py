"""Published: 705 GMACs, 50.1 to 49.1 mask AP."""

_base_ = '../_base_/mask2former_swin-l_coco-instance.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=12, grid=(8, 8)))]
