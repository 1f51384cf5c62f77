"""Unclustered; we know of no published result with this training."""

_base_ = '../_base_/clip4clip_msrvtt-full.py'
