"""Published: text to video R@1 41.8, video to text 42.8, 82.0 ms a video."""

_base_ = '../_base_/clip4clip_activitynet.py'
