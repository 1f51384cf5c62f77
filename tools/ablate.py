"""What each part of the methods is worth, on a real DINOv2 and on the demo's Segmenter. Run by `make ablation`."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.ablate import main  # noqa: E402

if __name__ == '__main__':
    run(main)
