"""Published: 937 to 737 GMACs of the backbone at 1152 x 1152, 52.3 to 51.6 mask AP."""

_base_ = '../_base_/maskdino_swin-l_coco-instance.py'

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=10, grid=(9, 9), temperature=100.0))
]
