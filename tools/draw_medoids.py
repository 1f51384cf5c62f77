"""Draws which tokens of a video a clustering keeps: each segment a row of frames, medoid tokens bright."""

from fewtokens.cli.draw_medoids import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
