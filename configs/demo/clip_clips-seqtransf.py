"""The small CLIP with a transformer over its frames, which sees their order; from the second phase's checkpoint.

python tools/make_clips.py data/order --kind order --training 1500 --validation 50 --test 200
python tools/train.py configs/demo/clip_clips-seqtransf.py
"""

_base_ = ['./clip_clips-order.py']

model = dict(temporal=dict(layers=2, max_frames=24))

# Not shuffled: a batch has clips and their reverses.
train_dataloader = dict(
    batch_size=32,
    sampler=dict(shuffle=False),
    dataset=dict(
        pipeline=[
            dict(type='LoadFrames', frames=6, how='random', rate=None, size=64, cache_dir='work_dirs/frames'),
            dict(type='PackClip'),
        ]
    ),
)
steps = 180
train_cfg = dict(max_iters=steps, val_interval=60)
param_scheduler = [dict(type='OneCycleLR', eta_max=5e-4, total_steps=steps, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=60, save_best='direction'))
load_from = 'configs/demo/clip_clips.pth'
