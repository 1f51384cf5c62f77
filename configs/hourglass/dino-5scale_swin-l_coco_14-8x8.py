"""Published: 937 to 768 GMACs of the backbone at 1152 x 1152, 58.5 to 57.7 box AP."""

_base_ = 'mmdet::dino/dino-5scale_swin-l_8xb2-36e_coco.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=14, grid=(8, 8), temperature=100.0))
]
