"""Unclustered, beside the published clusterings."""

_base_ = '../_base_/clip4clip_msrvtt-7k.py'
