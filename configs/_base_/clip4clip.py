"""CLIP4Clip's mean pooling, trained as CenterCLIP was: 8 processes with 16 pairs each, mixed precision.

torchrun --nproc-per-node 8 tools/train.py CONFIG --launcher pytorch --amp
"""

custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.retrieval'])
default_scope = 'mmengine'

model = dict(
    type='ClipRetrieval',
    # OpenAI's weights were trained with the quick form of GELU.
    clip=dict(name='ViT-B-32', pretrained='openai', quick_gelu=True),
    max_words=32,
)

frames = 12
train_pipeline = [dict(type='LoadFrames', frames=frames, how='random', rate=3.0), dict(type='PackClip')]
test_pipeline = [dict(type='LoadFrames', frames=frames, how='segment', rate=3.0), dict(type='PackClip')]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    # Each epoch's workers are seeded anew: a resumed training draws the same frames.
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pairs=True, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pairs=False, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='RetrievalMetric')

epochs = 5
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    # Published as 5e-3 for modules without pretrained weights and a thousandth for CLIP.
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2),
    paramwise_cfg=dict(custom_keys={'encoder.temporal': dict(lr_mult=1000), 'bias': dict(decay_mult=0)}),
    clip_grad=dict(max_norm=1.0),
)
warmup = 0.1 * epochs
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=warmup, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=warmup, end=epochs, by_epoch=True, convert_to_iter_based=True),
]

# The epoch is chosen on the validation split, which no data set's config takes from its test set.
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='R@1', rule='greater'),
)
randomness = dict(seed=42)
