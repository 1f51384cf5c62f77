"""Published: 663 GMACs, 57.8 to 56.8 PQ."""

_base_ = 'mmdet::mask2former/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=10, grid=(8, 8)))]
