"""Reducers on a real DINOv2 and real street scenes: what they cost in mIoU and in the features themselves."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.ablate_camvid import main  # noqa: E402

if __name__ == '__main__':
    run(main)
