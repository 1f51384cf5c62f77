"""The setting of k-medoids; we know of no published result."""

_base_ = '../_base_/clip4clip_activitynet.py'

model = dict(clustering=dict(segments=15, clusters=49, algorithm='spectral'))
