"""Evaluates and times plugins side by side, and writes a report of what each saves and costs."""

from fewtokens.cli.run import run
from fewtokens.cli.tradeoff import main

if __name__ == '__main__':
    run(main)
