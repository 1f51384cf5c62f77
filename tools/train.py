"""Trains a model of an mmseg, mmdet or text-video retrieval config, with or without a plugin."""

from fewtokens.cli.run import run
from fewtokens.cli.train import main

if __name__ == '__main__':
    run(main)
