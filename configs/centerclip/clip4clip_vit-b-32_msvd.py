"""Unclustered, beside the published clustering."""

_base_ = '../_base_/clip4clip_msvd.py'
