"""Draws which tokens of a video a clustering keeps: each segment a row of frames, medoid tokens bright."""

import argparse
from pathlib import Path

import cv2
import torch

from ..measure.files import shown, write_whole
from ..retrieval.decode import open_video
from ..retrieval.medoid_picture import draw_medoids, find_medoids
from ..retrieval.model import ClipPreprocessor
from ..retrieval.transforms import resize
from ..video import VideoEncoder
from ..video.clip_models import build_clip, load_pretrained, trained_options
from ..video.clustered import VideoPlugin
from ..video.sampling import sample_frames
from .options import HelpFormatter, at_least

PLUGIN = 'SegmentClustering(segments=6, clusters=49, after=6)'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('video', help='video file')
    parser.add_argument('--clip', default='ViT-B-32', help="a model of open_clip's, by its name")
    parser.add_argument('--pretrained', help="its weights: one of open_clip's tags, or a file; random if left out")
    parser.add_argument('--plugin', default=PLUGIN, help='the clustering')
    parser.add_argument('--frames', type=at_least(1), default=12, help='how many, evenly over the video')
    parser.add_argument('--out', type=Path, default=Path('medoids.png'), help='picture')
    args = parser.parse_args()
    if args.out.suffix.lower() not in ('.png', '.jpg'):
        raise ValueError(f'--out {str(args.out)!r} must end with .png or .jpg')
    plugin = VideoPlugin.parse(args.plugin)
    video = open_video(args.video)
    torch.manual_seed(0)  # for random weights
    clip = build_clip(args.clip, **trained_options(args.clip, args.pretrained)).eval()
    if args.pretrained:
        load_pretrained(clip, args.clip, args.pretrained)
    encoder = VideoEncoder(clip.visual, plugin.clustering, plugin.after)
    indices = sample_frames(len(video), video.fps, args.frames, rate=None)
    frames = resize(video.frames(indices), encoder.visual.image_size[0])
    inputs = ClipPreprocessor()(dict(inputs=[torch.from_numpy(frames).permute(0, 3, 1, 2)]))['inputs'][0]
    weights = args.pretrained or 'random weights'
    picture = draw_medoids(
        frames, find_medoids(encoder, inputs), indices / video.fps,
        f'{shown(Path(args.video).name)}: medoid tokens after block {plugin.after} of {args.clip} ({weights})',
    )  # fmt: skip
    content = cv2.imencode(args.out.suffix, picture[..., ::-1])[1]
    write_whole(args.out, lambda path: path.write_bytes(content.tobytes()))
    print(f'{shown(args.out)}: {plugin}')
