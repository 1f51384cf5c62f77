"""ActivityNet Captions, a paragraph for a video: 60 frames and 77 words, 8 epochs at twice the learning rate.

Published models were trained on `split='trainval'`, and chosen on the test set, the official val_1.
"""

_base_ = './clip4clip.py'

model = dict(max_words=77)

frames = 60
train_pipeline = [dict(type='LoadFrames', frames=frames, how='random', rate=3.0), dict(type='PackClip')]
test_pipeline = [dict(type='LoadFrames', frames=frames, how='segment', rate=3.0), dict(type='PackClip')]
data = dict(type='ActivityNet', data_root='data/activitynet')
train_dataloader = dict(dataset=dict(split='train', pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(split='val', pipeline=test_pipeline, **data))
test_dataloader = dict(dataset=dict(split='test', pipeline=test_pipeline, **data))

optim_wrapper = dict(optimizer=dict(lr=1e-5))
epochs = 8
train_cfg = dict(max_epochs=epochs)
warmup = 0.1 * epochs
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=warmup, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=warmup, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
