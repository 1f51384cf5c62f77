"""Writes a data set of procedurally composed scenes, in ADE20K's layout or in COCO's, or rooms with their depth."""

import argparse

from fewtokens.cli.options import at_least

from .scenes.ade20k import write_ade20k
from .scenes.coco import write_coco
from .scenes.depth import write_depth

WRITERS = dict(ade20k=write_ade20k, coco=write_coco, depth=write_depth)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('out', help='folder to write, e.g. data/scenes')
    parser.add_argument('--format', choices=WRITERS, default='ade20k', help='semantic, instance and panoptic, or depth')
    parser.add_argument('--training', type=int, default=0, help='number of training scenes')
    parser.add_argument('--validation', type=int, default=100, help='number of held-out scenes')
    parser.add_argument('--size', type=int, default=256, help='side of a scene in pixels')
    parser.add_argument('--seed', type=at_least(0), default=0, help='of the whole data set')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = dict(training=args.training, validation=args.validation)
    WRITERS[args.format](args.out, counts, size=args.size, seed=args.seed)
