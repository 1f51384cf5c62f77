"""Published: 937 to 683 GMACs of the backbone at 1152 x 1152, 58.3 to 57.4 PQ."""

_base_ = '../_base_/maskdino_swin-l_coco-panoptic.py'

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=10, grid=(8, 8), temperature=100.0))
]
