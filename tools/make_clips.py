"""Writes a data set of procedurally composed, captioned clips in MSR-VTT's layout: real mp4 files."""

import sys
from pathlib import Path

from fewtokens.cli.run import run

sys.path.insert(0, str(Path(__file__).parents[1]))  # where demo is
from demo.make_clips import main  # noqa: E402

if __name__ == '__main__':
    run(main)
