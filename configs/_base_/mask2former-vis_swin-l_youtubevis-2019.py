"""Video Mask2Former Swin-L on YouTubeVIS 2019, which mmdet has for smaller backbones only: the short side at 480."""

_base_ = './mask2former-vis_swin-l_youtubevis-2021.py'

data = dict(data_root='data/youtube_vis_2019/', dataset_version='2019')
train_dataloader = dict(dataset=dict(ann_file='annotations/youtube_vis_2019_train.json', **data))
test_pipeline = [
    dict(
        type='TransformBroadcaster',
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(1333, 480), keep_ratio=True),
            dict(type='LoadTrackAnnotations', with_mask=True),
        ],
    ),
    dict(type='PackTrackInputs'),
]
test_dataloader = dict(dataset=dict(ann_file='annotations/youtube_vis_2019_valid.json', pipeline=test_pipeline, **data))
val_dataloader = test_dataloader

train_cfg = dict(max_iters=6000, val_interval=6001)
param_scheduler = dict(end=6000, milestones=[4000])
default_hooks = dict(checkpoint=dict(interval=2000))
