"""Writes what a training logged, or several one after the other, as OUT.csv and OUT.png."""

import argparse
from pathlib import Path

from ..measure.files import write_together
from ..report.training_log import draw_log, log_table, read_log
from .options import HelpFormatter


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('phases', nargs='+', metavar='NAME=WORK_DIR', help="each training's name and its work folder")
    parser.add_argument('--metrics', nargs='+', default=[], help="the validation's, as they are logged, e.g. R@1 mIoU")
    parser.add_argument('--out', required=True, help='without suffix, e.g. configs/demo/clip_clips.log')
    args = parser.parse_args()
    if bad := [phase for phase in args.phases if not all(phase.partition('='))]:
        parser.error(f'{bad[0]!r} must be a name and a work folder, as in events=work_dirs/clip_clips-events')
    return args


def main() -> None:
    args = parse_args()
    phases = {name: read_log(folder) for name, _, folder in (phase.partition('=') for phase in args.phases)}
    table = log_table(phases, args.metrics).encode()
    picture = draw_log(phases, args.metrics)
    out = Path(args.out)
    write_together({out.with_name(f'{out.name}.csv'): table, out.with_name(f'{out.name}.png'): picture})
