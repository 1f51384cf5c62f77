"""The setting of 1k-A; no result with this training is published."""

_base_ = '../_base_/clip4clip_msrvtt-full.py'

model = dict(clustering=dict(segments=4, clusters=49))
