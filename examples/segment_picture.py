"""A segmenter of OpenMMLab on a picture, with all tokens and with fewer: both predictions, side by side.

python examples/segment_picture.py configs/demo/segmenter_scenes-256x256.py configs/demo/segmenter_scenes.pth PICTURE
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import fewtokens
import fewtokens.openmmlab  # noqa: F401  before any other package of OpenMMLab
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.predictions import complete_metainfo
from fewtokens.report.pictures import paint_labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a file, or a name such as mmseg::segmenter/….py')
    parser.add_argument('checkpoint')
    parser.add_argument('picture')
    parser.add_argument('--after', type=int, default=3, help='blocks before tokens are merged')
    parser.add_argument('--grid', type=int, default=16, help='merged tokens on a side')
    parser.add_argument('--out', default='segmented.png')
    args = parser.parse_args()

    from mmseg.apis import inference_model

    config = load_config(args.config)
    model: Any = build_model(config, args.checkpoint)
    model.cfg = config  # which mmseg's own inference reads its pipeline from

    def segment(model: nn.Module) -> tuple[np.ndarray, float]:
        """The map of classes [H, W], and the seconds that the second of two passes took."""
        for _ in range(2):
            start = time.perf_counter()
            sample = inference_model(model, args.picture)
            seconds = time.perf_counter() - start
        return sample.pred_sem_seg.data[0].numpy(), seconds

    fewtokens.use_sdpa(model)  # exact: PyTorch's fused attention, which mmseg's ViT misses
    full, seconds = segment(model)
    with fewtokens.attach(model, fewtokens.SharedUpdate(after=args.after, grid=args.grid)) as attachment:
        fewer, fewer_seconds = segment(model)
        print(attachment.summary())
    print(f'{seconds / fewer_seconds:.2f} times as fast, {(full == fewer).mean():.1%} of the pixels alike')

    picture = np.asarray(Image.open(args.picture).convert('RGB'))
    palette = np.array(complete_metainfo(model.dataset_meta, config)['palette'], np.uint8)
    maps = [paint_labels(picture, labels, palette) for labels in (full, fewer)]
    Image.fromarray(np.concatenate([picture, *maps], axis=1)).save(args.out)
    print(args.out)


if __name__ == '__main__':
    with torch.no_grad():
        main()
