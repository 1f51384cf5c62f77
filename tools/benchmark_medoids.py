"""Compares k_medoids with the published form, which makes a tensor of segments x clusters x tokens x tokens."""

from fewtokens.cli.benchmark_medoids import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
