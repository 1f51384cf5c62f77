"""A few captioned videos, and a config for a tiny CLIP on them."""

import csv
from pathlib import Path

import numpy as np
import torch
from videos import write_video

COLOURS = dict(red=(200, 40, 40), green=(40, 180, 60), blue=(40, 60, 210), yellow=(210, 200, 40), grey=(120, 120, 120))
SHADES = dict(dark=0.5, plain=0.8, bright=1.15)
CONFIG = """
_base_ = '{base}'
model = dict(
    clip=dict(
        _delete_=True,
        config=dict(
            embed_dim=16,
            vision_cfg=dict(image_size=32, patch_size=8, layers=3, width=32, head_width=16),
            text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=2),
        ),
    ),
    max_words=12,
)
train_pipeline = [dict(type='LoadFrames', frames=4, how='random', rate=None, size=32), dict(type='PackClip')]
test_pipeline = [dict(type='LoadFrames', frames=4, how='segment', rate=None, size=32), dict(type='PackClip')]
data = dict(type='VideoFolder', data_root='{data}')
loading = dict(batch_size={batch}, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(ann_file='train.csv', pipeline=train_pipeline, **data), **loading)
val_dataloader = dict(dataset=dict(ann_file='val.csv', pipeline=test_pipeline, **data), **loading)
test_dataloader = dict(dataset=dict(ann_file='test.csv', pipeline=test_pipeline, **data), **loading)
epochs = 2
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=0.5, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=0.5, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(logger=dict(interval=1))
work_dir = '{work}'
"""


def write_clips(folder: Path) -> Path:
    """Fifteen videos of a square on a ground: 8 to train, 3 to validate, and 5 (one of them a training video) to test.

    Two captions each; a test video has three, another one.
    """
    names = [(colour, shade) for colour in COLOURS for shade in SHADES]
    order = np.random.RandomState(0).permutation(len(names))
    parts = dict(train=order[:8], val=order[8:11], test=order[10:15])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (colour, shade) in enumerate(names):
        frames = np.full((8, 32, 48, 3), 90, np.uint8)
        for time, frame in enumerate(frames):
            frame[8:24, 4 * time : 4 * time + 16] = np.clip(np.array(COLOURS[colour]) * SHADES[shade], 0, 255)
        write_video(folder / f'{number}.mp4', frames)
    for part, members in parts.items():
        with open(folder / f'{part}.csv', 'w', newline='') as file:
            rows = csv.writer(file)
            rows.writerow(['video', 'caption'])
            for place, number in enumerate(members):
                colour, shade = names[number]
                captions = [f'a {shade} {colour} square', f'a square that is {colour}', f'{shade} {colour}']
                count = {('test', 0): 3, ('test', 1): 1}.get((part, place), 2)
                rows.writerows([f'{number}.mp4', caption] for caption in captions[:count])
    return folder


def write_clip_config(folder: Path, data: Path, batch: int = 4) -> Path:
    base = Path(__file__).parents[2] / 'configs/_base_/clip4clip.py'
    path = folder / 'tiny_clip.py'
    path.write_text(CONFIG.format(base=base, data=data, work=folder / 'work', batch=batch))
    return path


def write_clip_checkpoint(config: Path) -> Path:
    """Random weights."""
    from fewtokens.openmmlab.config import load_config
    from fewtokens.openmmlab.model import build_model

    torch.manual_seed(0)
    path = config.with_suffix('.pth')
    torch.save(dict(state_dict=build_model(load_config(config)).state_dict()), path)
    return path
