"""Published: text to video R@1 49.6, video to text 62.7, 59.6 ms a video."""

_base_ = '../_base_/clip4clip_msvd.py'

model = dict(clip=dict(name='ViT-B-16'))
