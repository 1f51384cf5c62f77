"""The setting of 1k-A; we know of no published result."""

_base_ = '../_base_/clip4clip_msrvtt-full.py'

model = dict(clustering=dict(segments=6, clusters=49))
