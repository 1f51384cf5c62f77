"""Published: 8957 to 7631 GMACs of the backbone at 28 frames of 480 x 832, 60.4 to 60.2 AP."""

_base_ = '../_base_/mask2former-vis_swin-l_youtubevis-2019.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
reducer = dict(type='Hourglass', after=14, grid=(8, 8), iters=4, window=7, k=49, temperature=100.0)
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=reducer)]
