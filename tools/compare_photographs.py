"""A real DINOv2 with fewer tokens on real photographs: what is saved, what is still seen."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.compare_photographs import main  # noqa: E402

if __name__ == '__main__':
    run(main)
