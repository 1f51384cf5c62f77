"""Runs a folder of pictures through a model, with and without a plugin: overlays beside each other, with timings."""

from fewtokens.cli.predict import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
