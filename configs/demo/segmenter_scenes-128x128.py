"""A small Segmenter on procedural scenes, first phase: crops, which are cheap, to learn the textures."""

_base_ = ['./segmenter_scenes-256x256.py']

model = dict(data_preprocessor=dict(size=(128, 128)))
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='RandomCrop', crop_size=(128, 128)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]
    ),
)
steps = 1400
train_cfg = dict(max_iters=steps, val_interval=10 * steps)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [dict(type='OneCycleLR', eta_max=1.5e-3, total_steps=steps, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=steps))
load_from = None
