"""Finds the plugin for your model: the settings that lose least at a speed, or the fastest that agree well enough."""

from fewtokens.cli.run import run
from fewtokens.cli.tune import main

if __name__ == '__main__':
    run(main)
