"""The setting of MSR-VTT on ViT-B/16; we know of no published result."""

_base_ = '../_base_/clip4clip_msvd.py'

model = dict(clip=dict(name='ViT-B-16'), clustering=dict(segments=4, clusters=160))
