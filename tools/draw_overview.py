"""Draws what merging tokens does, on real photographs and with real weights: docs/figures/overview.jpg."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.draw_overview import main  # noqa: E402

if __name__ == '__main__':
    run(main)
