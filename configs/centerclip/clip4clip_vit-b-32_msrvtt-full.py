"""Unclustered; no result with this training is published."""

_base_ = '../_base_/clip4clip_msrvtt-full.py'
