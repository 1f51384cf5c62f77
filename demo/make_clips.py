"""Writes a data set of procedurally composed, captioned clips in MSR-VTT's layout: real mp4 files.

It may be interrupted: a second call goes on. captions.bpe.gz is the tokenizer's file that a model of these clips needs
beside its config. The kinds are
clips: two to four events, one after the other; captions name them all, and no frame shows them all
events: one event that lasts, to learn from single frames what words mean
order: clips and their reverse, whose captions differ in direction or order alone
"""

import argparse

from fewtokens.cli.options import at_least

from .scenes.msrvtt import KINDS, write_msrvtt


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', help='folder to write, e.g. data/clips')
    parser.add_argument('--kind', choices=KINDS, default='clips', help='see above (default: clips)')
    parser.add_argument('--training', type=at_least(0), default=0, help='training clips, or pairs (default: 0)')
    parser.add_argument(
        '--validation', type=at_least(0), default=0, help='those to choose a checkpoint by (default: 0)'
    )
    parser.add_argument('--test', type=at_least(0), default=300, help='those to report (default: 300)')
    parser.add_argument('--size', type=at_least(32), default=64, help='side of a frame in pixels (default: 64)')
    parser.add_argument('--seed', type=at_least(0), default=0, help='of the whole data set (default: 0)')
    parser.add_argument('--processes', type=at_least(1), default=1, help='draw at the same time (default: 1)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    counts = dict(training=args.training, validation=args.validation, test=args.test)
    write_msrvtt(args.out, counts, args.kind, args.size, args.seed, args.processes)
