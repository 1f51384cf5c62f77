"""Writes the weights of a real DINOv2 ViT-S/14 as the checkpoint that the configs in configs/camvid start from."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.read_dinov2 import main  # noqa: E402

if __name__ == '__main__':
    run(main)
