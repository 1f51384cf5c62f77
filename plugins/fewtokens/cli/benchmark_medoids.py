"""Compares k_medoids with the published form, which makes a tensor of segments x clusters x tokens x tokens."""

import argparse
from statistics import median

import torch
from torch.utils.benchmark import Timer

from ..ops import dense, k_medoids
from .options import HelpFormatter, add_device_option, at_least

FUNCTIONS = {'published form': dense.k_medoids_at_once, 'k_medoids': k_medoids}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    names = ('SEGMENTS', 'TOKENS', 'WIDTH')
    parser.add_argument(
        '--shape', type=at_least(1), nargs=3, metavar=names, default=[2, 588, 768], help='of what is clustered'
    )
    parser.add_argument('--clusters', type=at_least(1), default=160, help='tokens kept of each segment')
    parser.add_argument('--threads', type=at_least(1), default=1, help='CPU threads')
    add_device_option(parser, 'cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--rounds', type=at_least(1), default=3, help='how many times each is timed')
    args = parser.parse_args()
    if args.clusters > args.shape[1]:
        parser.error(f'--clusters {args.clusters} must be at most the number of tokens, {args.shape[1]}')
    tokens = torch.randn(*args.shape, device=args.device)
    timers = {
        name: Timer('call(x, k)', globals=dict(call=call, x=tokens, k=args.clusters), num_threads=args.threads)
        for name, call in FUNCTIONS.items()
    }
    # In turn: a machine that slows down slows both.
    seconds: dict[str, list[float]] = {name: [] for name in FUNCTIONS}
    for _ in range(args.rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(1).mean)
    published, ours = seconds.values()
    for name, times in seconds.items():
        print(f'{name:14} {1000 * median(times):9.1f} ms')
    same = torch.equal(*(call(tokens, args.clusters)[0] for call in FUNCTIONS.values()))
    faster = median(slow / fast for slow, fast in zip(published, ours))
    print(f'{faster:.0f} times as fast; the medoids are {"the same" if same else "different"}')
