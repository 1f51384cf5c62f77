"""Finds videos by a text: `index` encodes a folder of videos once, `find` searches it."""

from fewtokens.cli.run import run
from fewtokens.cli.search_videos import main

if __name__ == '__main__':
    run(main)
