"""Published: text to video R@1 43.0."""

_base_ = '../_base_/clip4clip_msrvtt-9k.py'
