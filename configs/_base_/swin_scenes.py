"""What the demo's Swin models share: classes, backbone and training, from scratch on a CPU."""

classes = ('brick', 'grass', 'gravel', 'coffee', 'chelsea', 'hubble', 'rocket', 'astronaut', 'flower', 'china')
palette = [
    (178, 34, 34), (60, 160, 60), (130, 130, 130), (139, 90, 43), (244, 164, 96),
    (25, 25, 112), (70, 130, 180), (255, 140, 0), (255, 215, 0), (200, 60, 180),
]  # fmt: skip
# Most blocks stand in the second stage: 32 x 32 tokens of a scene in windows of 8 x 8.
backbone = dict(
    type='SwinTransformer',
    embed_dims=64,
    depths=(1, 14, 1),
    num_heads=(2, 4, 8),
    window_size=8,
    out_indices=(0, 1, 2),
    drop_path_rate=0.0,
)
channels = [64, 128, 256]

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
custom_imports = dict(imports=['fewtokens.openmmlab'])
val_cfg = dict()
test_cfg = dict()
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
