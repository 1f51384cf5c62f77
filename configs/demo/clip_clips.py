"""A small CLIP on procedural clips, second phase: several frames a clip, from the checkpoint of the first phase.

python tools/make_clips.py data/events --kind events --training 7000 --validation 200 --test 0
python tools/make_clips.py data/clips --training 4000 --validation 200 --test 1000
python tools/train.py configs/demo/clip_clips-events.py
python tools/train.py configs/demo/clip_clips.py

The weights beside this file are those of the best validation R@1, in half precision.
"""

_base_ = ['../_base_/clip4clip.py']

model = dict(clip=dict(_delete_=True, config='{{ fileDirname }}/clip_clips.json'), max_words=None)

frames = 12
_train = [
    dict(type='LoadFrames', frames=3, how='random', rate=None, size=64, cache_dir='work_dirs/frames'),
    dict(type='PackClip'),
]
_test = [
    dict(type='LoadFrames', frames=frames, how='segment', rate=None, size=64, cache_dir='work_dirs/frames'),
    dict(type='PackClip'),
]
_clips = dict(type='MSRVTT', data_root='data/clips')
train_dataloader = dict(
    batch_size=48,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(split='train', pipeline=_train, **_clips),
)
val_dataloader = dict(
    batch_size=20, num_workers=0, persistent_workers=False, dataset=dict(split='val', pipeline=_test, **_clips)
)
test_dataloader = dict(
    batch_size=20, num_workers=0, persistent_workers=False, dataset=dict(split='test', pipeline=_test, **_clips)
)

steps = 700
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps, val_interval=100)
optim_wrapper = dict(
    type='AutocastOptimWrapper', fused_attention=False, optimizer=dict(lr=7e-4, eps=1e-8, weight_decay=0.05)
)
param_scheduler = [dict(type='OneCycleLR', eta_max=7e-4, total_steps=steps, by_epoch=False)]
default_hooks = dict(logger=dict(interval=20, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=100))
log_processor = dict(by_epoch=False)

load_from = 'work_dirs/clip_clips-events/iter_600.pth'
