"""Video Mask2Former Swin-L on YouTubeVIS 2021, tested as its authors do: the short side at 360, of any video."""

_base_ = 'mmdet::mask2former_vis/mask2former_swin-l-p4-w12-384-in21k_8xb2-8e_youtubevis2021.py'

test_pipeline = [
    dict(
        type='TransformBroadcaster',
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(1333, 360), keep_ratio=True),
            dict(type='LoadTrackAnnotations', with_mask=True),
        ],
    ),
    dict(type='PackTrackInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
