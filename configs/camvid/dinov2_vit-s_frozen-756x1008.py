"""The model of dinov2_vit-s_frozen-504x672.py, evaluated at 756 x 1008 pixels: 54 x 72 tokens."""

_base_ = ['./dinov2_vit-s_frozen-504x672.py']

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1008, 756), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
