"""Makes small copies of a folder's videos for training, as CenterCLIP does: 3 frames a second, short side 224."""

from fewtokens.cli.prepare_videos import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
