"""Compares segment clusterings with the same CLIP unclustered, in one run: MACs, time, memory. Random weights."""

from fewtokens.cli.benchmark_video import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
