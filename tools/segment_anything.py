"""Segment Anything with fewer tokens: how much sooner its image encoder is done, and how far its masks move."""

from fewtokens.cli.run import run
from fewtokens.cli.segment_anything import main

if __name__ == '__main__':
    run(main)
