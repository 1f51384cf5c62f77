"""Evaluates a model of an mmseg, mmdet or text-video retrieval config on its test set, with or without a plugin."""

from fewtokens.cli.run import run
from fewtokens.cli.test import main

if __name__ == '__main__':
    run(main)
