"""A small CLIP on procedural clips, first phase: one frame of one event, which is cheap, to learn the words."""

_base_ = ['./clip_clips.py']

_frame = [
    dict(type='LoadFrames', frames=1, how='random', rate=None, size=64, cache_dir='work_dirs/frames'),
    dict(type='PackClip'),
]
_events = dict(data_root='data/events', pipeline=_frame)
train_dataloader = dict(batch_size=64, dataset=_events)
val_dataloader = dict(dataset=_events)

steps = 600
train_cfg = dict(max_iters=steps, val_interval=300)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='OneCycleLR', eta_max=1e-3, total_steps=steps, by_epoch=False, pct_start=0.15)]
default_hooks = dict(checkpoint=dict(interval=300))
load_from = None
