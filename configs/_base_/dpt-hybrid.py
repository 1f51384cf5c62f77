"""DPT with its hybrid backbone (a ResNet-50 stem and a ViT-B/16 of 12 blocks), as transformers builds it."""

_base_ = ['mmseg::_base_/default_runtime.py']

custom_imports = dict(
    imports=[
        'fewtokens.openmmlab',
        'fewtokens.openmmlab.depth_data',
        'fewtokens.openmmlab.depth_metric',
        'fewtokens.openmmlab.depth_models',
    ]
)

model = dict(
    type='TransformersDepthEstimator',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, seg_pad_val=0,
        test_cfg=dict(size_divisor=32),
    ),
    network=dict(
        model_type='dpt', is_hybrid=True, image_size=384, neck_hidden_sizes=[256, 512, 768, 768],
        reassemble_factors=[1, 1, 1, 0.5],
    ),
    invert=True,
)  # fmt: skip
test_cfg = dict()
