"""A published setting; we know of no result."""

_base_ = '../_base_/clip4clip_lsmdc.py'

model = dict(clip=dict(name='ViT-B-16'), clustering=dict(segments=4, clusters=160))
