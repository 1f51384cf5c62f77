"""Published: 7159 to 6253 GMACs of the backbone at 32 frames of 400 x 640, 52.6 to 51.8 AP."""

_base_ = '../_base_/mask2former-vis_swin-l_youtubevis-2021.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
reducer = dict(type='Hourglass', after=14, grid=(8, 8), iters=5, window=7, k=49, temperature=100.0)
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=reducer)]
