"""DiDeMo, a paragraph for a video: 64 frames, one a second, and 64 words, with CLIP4Clip's learning rate."""

_base_ = './clip4clip.py'

model = dict(max_words=64)

frames = 64
train_pipeline = [dict(type='LoadFrames', frames=frames, how='uniform', rate=1.0), dict(type='PackClip')]
test_pipeline = [dict(type='LoadFrames', frames=frames, how='uniform', rate=1.0), dict(type='PackClip')]
data = dict(type='DiDeMo', data_root='data/didemo')
train_dataloader = dict(dataset=dict(split='train', pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(split='val', pipeline=test_pipeline, **data))
test_dataloader = dict(dataset=dict(split='test', pipeline=test_pipeline, **data))

optim_wrapper = dict(optimizer=dict(lr=1e-7))
