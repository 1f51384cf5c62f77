"""The same head and DINOv2 tuned together, from where the head's training ended; evaluated at 504 x 672 pixels.

python tools/train.py configs/camvid/dinov2_vit-s_frozen-504x672.py
python tools/train.py configs/camvid/dinov2_vit-s_tuned-504x672.py
"""

_base_ = ['../_base_/camvid_dinov2_vit-s.py']

model = dict(backbone=dict(drop_path_rate=0.1))
steps = 600
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-5, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.0)), norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
# For each group of parameters its own highest rate: the scheduler scales what the groups have.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=60, by_epoch=False),
    dict(type='PolyLR', power=1.0, eta_min_ratio=0.0, begin=60, end=steps, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=steps))
load_from = 'work_dirs/dinov2_vit-s_frozen-504x672/iter_1000.pth'
