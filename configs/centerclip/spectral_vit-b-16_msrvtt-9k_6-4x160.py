"""The setting of k-medoids on ViT-B/16; no result is published."""

_base_ = '../_base_/clip4clip_msrvtt-9k.py'

model = dict(
    clip=dict(name='ViT-B-16'),
    clustering=dict(segments=4, clusters=160, algorithm='spectral', graph='looped_heat'),
)
