"""Videos by a text, in a few lines of Python. `fewtokens index` and `fewtokens find` keep an index, and more.

python examples/search_videos.py FOLDER "a bird lands on the water"
"""

import argparse
from pathlib import Path

import av
import numpy as np
import open_clip
import torch
from PIL import Image

from fewtokens.video import SegmentClustering, VideoEncoder

SUFFIXES = ('.avi', '.mkv', '.mov', '.mp4', '.webm')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('text')
    parser.add_argument('--clip', default='ViT-B-32', help='a model of open_clip')
    parser.add_argument('--pretrained', default='openai', help='its weights; none for random ones, to try the script')
    parser.add_argument('--frames', type=int, default=12, help='of each video')
    args = parser.parse_args()

    pretrained = None if args.pretrained == 'none' else args.pretrained
    clip, _, prepare = open_clip.create_model_and_transforms(args.clip, pretrained=pretrained)
    # Every segment's tokens become 49; attention counts each as often as it stands for others.
    clustering = SegmentClustering(segments=args.frames // 2, clusters=49, size_bias=True)
    encoder = VideoEncoder(clip.eval(), clustering, after=6).eval()

    files = sorted(file for file in args.folder.iterdir() if file.suffix.lower() in SUFFIXES)
    with torch.no_grad():
        text = clip.encode_text(open_clip.get_tokenizer(args.clip)([args.text]), normalize=True)[0]
        scores = []
        for file in files:
            frames = torch.stack([prepare(frame) for frame in read_frames(file, args.frames)])
            scores.append(float(encoder(frames[None])[0] @ text))
    for score, file in sorted(zip(scores, files), reverse=True):
        print(f'{score:.3f}  {file.name}')


def read_frames(file: Path, count: int) -> list[Image.Image]:
    """Frames in even steps."""
    with av.open(str(file)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


if __name__ == '__main__':
    main()
