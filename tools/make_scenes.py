"""Writes a data set of procedurally composed scenes, in ADE20K's layout or in COCO's."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.make_scenes import main  # noqa: E402

if __name__ == '__main__':
    run(main)
