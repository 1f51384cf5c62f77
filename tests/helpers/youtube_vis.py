"""Drawn videos in the layout that mmdet has YouTubeVIS in, and a tiny Video Mask2Former for them."""

import json
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

HOURGLASS = Path(__file__).parents[2] / 'configs/hourglass'
FRAMES, SIZE = 3, (72, 128)
CLASSES = ('person', 'giant_panda')
"""The first two of 2019's."""


def write_videos(folder: Path, count: int = 2) -> None:
    """Two squares in each that move to the right, of other colours and classes."""
    content = dict(videos=[], images=[], annotations=[])
    content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    height, width = SIZE
    for video in range(1, count + 1):
        content['videos'].append(dict(id=video, name=f'{video:03d}', width=width, height=height))
        for frame in range(FRAMES):
            image_id, name = len(content['images']) + 1, f'{video:03d}/{frame:05d}.jpg'
            content['images'].append(
                dict(id=image_id, video_id=video, frame_id=frame, file_name=name, width=width, height=height)
            )
            picture = np.full((height, width, 3), 90, np.uint8)
            for thing, (top, colour) in enumerate([(6, (40, 40, 220)), (40, (220, 180, 30))]):
                left, side = 10 * frame + 20 * thing + video, 24
                picture[top : top + side, left : left + side] = colour
                right, bottom = left + side, top + side
                content['annotations'].append(
                    dict(
                        id=len(content['annotations']) + 1,
                        image_id=image_id, video_id=video, instance_id=2 * video + thing, category_id=thing + 1,
                        bbox=[left, top, side, side], area=side**2, iscrowd=0,
                        segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                    )
                )  # fmt: skip
            path = folder / 'valid/JPEGImages' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    path = folder / 'annotations/youtube_vis_2019_valid.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def write_video_config(folder: Path, data: Path) -> Path:
    """The published config of 2019, made small, and scored here instead of by a server."""
    config = Config.fromfile(HOURGLASS / 'mask2former-vis_swin-l_youtubevis-2019_14-8x8.py')
    shrink(config.model)
    config.custom_hooks[0].reducer.update(after=3, grid=(2, 2), k=4)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    dataset = config.test_dataloader.dataset
    dataset.data_root = f'{data}/'
    dataset.pipeline[0].transforms[1].scale = SIZE[::-1]
    config.test_evaluator.update(format_only=False)
    config.work_dir = str(folder / 'work')
    path = folder / 'videos.py'
    config.dump(path)
    return path


def shrink(model: Config) -> None:
    """Six blocks, windows of 4 x 4, and a head of two layers, all thin."""
    model.backbone.update(embed_dims=8, depths=[1, 1, 3, 1], num_heads=[1, 2, 2, 4], window_size=4)
    head = model.track_head
    head.update(in_channels=[8, 16, 32, 64], feat_channels=32, out_channels=32, num_queries=12)
    head.positional_encoding.num_feats = 16
    decoder, pixels = head.transformer_decoder, head.pixel_decoder
    decoder.num_layers = pixels.encoder.num_layers = 2
    pixels.positional_encoding.num_feats = 16
    for layer in (decoder.layer_cfg, pixels.encoder.layer_cfg):
        for name in ('self_attn_cfg', 'cross_attn_cfg', 'ffn_cfg'):
            if name in layer:
                layer[name].embed_dims = 32
        layer.ffn_cfg.feedforward_channels = 64
