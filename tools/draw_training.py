"""Writes what a training logged, or several one after the other, as OUT.csv and OUT.png."""

from fewtokens.cli.draw_training import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
