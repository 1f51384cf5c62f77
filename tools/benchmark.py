"""Compares plugins with the untouched host, side by side in one run: MACs, time, memory. Random weights will do."""

from fewtokens.cli.benchmark import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
