"""Brings a published model under the key names of today's mmseg and mmdet, and of ClipRetrieval."""

from fewtokens.cli.convert_checkpoint import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
