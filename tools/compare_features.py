"""What plugins do to a model's features on your own pictures: cosines block by block, speed, and drawings of them."""

from fewtokens.cli.compare_features import main
from fewtokens.cli.run import run

if __name__ == '__main__':
    run(main)
