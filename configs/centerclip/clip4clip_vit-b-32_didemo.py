"""CLIP4Clip's recipe; CenterCLIP publishes no clustering for DiDeMo. Any can be tried: --plugin."""

_base_ = '../_base_/clip4clip_didemo.py'
