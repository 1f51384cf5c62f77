"""A light head on a frozen DINOv2, trained on CamVid on a CPU; evaluated at 504 x 672 pixels.

python tools/read_dinov2.py work_dirs/real/dinov2_vits14.pth
python tools/train.py configs/camvid/dinov2_vit-s_frozen-504x672.py
"""

_base_ = ['../_base_/camvid_dinov2_vit-s.py']

model = dict(backbone=dict(type='FrozenTIMMBackbone'))
steps = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
optim_wrapper = dict(
    type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [dict(type='OneCycleLR', eta_max=2e-3, total_steps=steps, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=steps))
load_from = 'work_dirs/real/dinov2_vits14.pth'
