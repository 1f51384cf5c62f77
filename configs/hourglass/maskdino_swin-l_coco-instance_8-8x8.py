"""Published: 937 to 640 GMACs of the backbone at 1152 x 1152, 52.3 to 50.9 mask AP."""

_base_ = '../_base_/maskdino_swin-l_coco-instance.py'

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=8, grid=(8, 8), temperature=100.0))
]
