"""DPT-Hybrid as published for KITTI: the KB crop of 352 x 1216 pixels, 22 x 76 tokens; Eigen's split in Garg's crop."""

_base_ = ['./dpt-hybrid.py']

model = dict(scale=0.00006016, shift=0.00579)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='KITTIDepthDataset',
        data_root='data/kitti',
        ann_file='eigen_test_files.txt',
        data_prefix=dict(img_path='raw', depth_map_path='data_depth_annotated'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='KBCrop'),
            dict(type='LoadDepthAnnotation', depth_rescale_factor=1 / 256),
            dict(type='PackDepthInputs'),
        ],
    ),
)
test_evaluator = dict(type='MonocularDepthMetric', min_depth=1e-3, max_depth=80.0, crop='garg', png_scale=256.0)
