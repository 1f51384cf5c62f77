"""Published: 937 to 769 GMACs of the backbone at 1152 x 1152, 48.0 to 47.6 PQ."""

_base_ = '../_base_/mask2former_swin-l_ade20k-panoptic.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
reducer = dict(type='Hourglass', after=14, grid=(8, 8), iters=4, window=7, k=49, temperature=100.0)
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=reducer)]
