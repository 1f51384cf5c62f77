"""Published: 937 to 838 GMACs of the backbone at 1152 x 1152, 58.3 to 58.1 PQ."""

_base_ = '../_base_/maskdino_swin-l_coco-panoptic.py'

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=16, grid=(9, 9), temperature=100.0))
]
