"""Measures on a CUDA device: passes of timm's ViTs with fewer tokens, the kernels, attention with a bias.

Needs torch, triton and timm, and no OpenMMLab. Weights are random: this measures speed only.
"""

import argparse
import datetime
import sys
from pathlib import Path

import torch

from fewtokens.measure.environment import describe_environment
from fewtokens.measure.files import write_json
from fewtokens.measure.gpu.run import PARTS, run_parts
from fewtokens.measure.gpu.timing import Clock, Results
from fewtokens.report.gpu import draw_gain, format_rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=PARTS,
        default=list(PARTS[:-1]),
        help='what to measure, in this order',
    )
    parser.add_argument('--seconds', type=float, default=90.0, help='after these no further row is begun')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench'), help='folder of the JSON file and picture')
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print('error: there is no CUDA device here; make bench measures on the CPU', file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name()
    stem = f'gpu-{datetime.datetime.now():%Y-%m-%d-%H%M}-{name.replace(" ", "-")}'
    environment = describe_environment(
        torch.device('cuda'), cuda=torch.version.cuda, capability=torch.cuda.get_device_capability()
    )

    def write(rows: list[dict]) -> None:
        write_json(args.out / f'{stem}.json', dict(environment=environment, rows=rows))
        print(format_rows(rows[-1:]), flush=True)

    results = Results(write, Clock(args.seconds))
    run_parts(args.parts, results)
    try:
        draw_gain(results.rows, name, args.out / f'{stem}.png')
    except ImportError:
        print('no picture: matplotlib is not installed', file=sys.stderr)
    print(f'{format_rows(results.rows)}\n\n{args.out / stem}.json, {results.clock.spent:.0f} s')
    return 0


if __name__ == '__main__':
    sys.exit(main())
