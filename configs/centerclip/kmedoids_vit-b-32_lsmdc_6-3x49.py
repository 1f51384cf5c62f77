"""A setting of the authors' script, which the tables leave out."""

_base_ = '../_base_/clip4clip_lsmdc.py'

model = dict(clustering=dict(segments=3, clusters=49))
