"""The authors' checkpoint 80: text to video R@1 43.9, video to text 42.6."""

_base_ = '../_base_/clip4clip_msrvtt-7k.py'

model = dict(clustering=dict(segments=4, clusters=49), after=7)
