"""DPT-Hybrid as published for NYUv2: 480 x 640 pixels, 30 x 40 tokens; the test pictures in Eigen's crop."""

_base_ = ['./dpt-hybrid.py']

model = dict(scale=0.000305, shift=0.1378)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='NYUDepthDataset',
        data_root='data/nyu',
        data_prefix=dict(img_path='official_splits/test', depth_map_path='official_splits/test'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
            dict(type='PackDepthInputs'),
        ],
    ),
)
test_evaluator = dict(type='MonocularDepthMetric', min_depth=1e-3, max_depth=10.0, crop='nyu-eigen', png_scale=1000.0)
