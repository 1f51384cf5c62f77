"""Unclustered, beside the authors' checkpoints."""

_base_ = '../_base_/clip4clip_msrvtt-7k.py'
