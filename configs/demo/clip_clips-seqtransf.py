"""The small CLIP with a transformer over its frames, which sees their order; from the second phase's weights.

python tools/make_clips.py data/order --kind order --training 1500 --validation 50 --test 200
python tools/train.py configs/demo/clip_clips-seqtransf.py
python tools/test.py configs/demo/clip_clips-seqtransf.py configs/demo/clip_clips-seqtransf.pth

The weights beside this file are those of the last step, in half precision.
"""

_base_ = ['./clip_clips-order.py']

# Positions at the scale of the embeddings: from 0.01, order was not learned in as many steps.
model = dict(temporal=dict(layers=2, max_frames=24, position_std=0.5))

# As many frames as in the test: each has a learned position.
_train = [
    dict(type='LoadFrames', frames=6, how='random', rate=None, size=64, cache_dir='work_dirs/frames'),
    dict(type='PackClip'),
]
_six = dict(dataset=dict(pipeline=[dict(type='LoadFrames', frames=6, how='segment', rate=None, size=64), _train[1]]))
# Not shuffled: a batch has clips and their reverses.
train_dataloader = dict(batch_size=24, sampler=dict(shuffle=False), dataset=dict(pipeline=_train))
val_dataloader = _six
test_dataloader = _six

steps = 700
train_cfg = dict(max_iters=steps, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(custom_keys={'encoder.temporal': dict(lr_mult=3)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=steps, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=100, save_best='direction'))
load_from = 'configs/demo/clip_clips.pth'
