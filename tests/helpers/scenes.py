"""A tiny data set, and a config for a tiny Segmenter on it."""

from pathlib import Path

CONFIG = """
custom_imports = dict(imports=['fewtokens.openmmlab'])
_base_ = '{base}'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(img_size=(64, 64), embed_dims=32, num_layers=4),
    decode_head=dict(in_channels=32, channels=32, embed_dims=32),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}', pipeline=test_pipeline)
)
test_dataloader = dict(dataset=dict(data_root='{data}', pipeline=test_pipeline))
val_dataloader = test_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
optim_wrapper = dict(type='OptimWrapper')
default_hooks = dict(checkpoint=dict(interval=2))
load_from = None
work_dir = '{work}'
custom_hooks = []
"""


def write_config(folder: Path, data: Path) -> Path:
    base = Path(__file__).parents[2] / 'configs/demo/segmenter_scenes-256x256.py'
    path = folder / 'tiny.py'
    path.write_text(CONFIG.format(base=base, data=data, work=folder / 'work'))
    return path
