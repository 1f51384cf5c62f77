"""A setting of the authors' script, which the tables leave out."""

_base_ = '../_base_/clip4clip_activitynet.py'

model = dict(clustering=dict(segments=20, clusters=49))
