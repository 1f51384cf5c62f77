"""The command `fewtokens`: finds the tool that is asked for and runs it.

It stands beside the package, for importing anything of that imports torch: a list of commands need not wait for it.
"""

import argparse
import importlib
import runpy
import sys
from pathlib import Path

COMMANDS = {
    'tune': ('tune', 'find the settings for your model, from pictures without labels'),
    'compare': ('compare_features', "show what plugins do to a model's features on your own pictures"),
    'predict': ('predict', 'run a folder of pictures through a model: overlays side by side, with timings'),
    'benchmark': ('benchmark', 'MACs, time and memory of plugins, side by side; random weights will do'),
    'test': ('test', 'evaluate a model on its test set, with or without a plugin'),
    'tradeoff': ('tradeoff', 'evaluate and time plugins side by side, and write a report'),
    'train': ('train', 'train a model, with or without a plugin'),
    'convert': ('convert_checkpoint', "bring a published checkpoint under today's key names"),
    'segment-anything': ('segment_anything', "compare SAM's masks and speed with fewer tokens and with all"),
    'index': ('search_videos', 'encode a folder of videos, to be searched'),
    'find': ('search_videos', 'find videos by a text'),
    'prepare-videos': ('prepare_videos', 'make small copies of videos to train on, as CenterCLIP does'),
    'benchmark-video': ('benchmark_video', 'MACs, time and memory of segment clusterings in a CLIP'),
    'benchmark-medoids': ('benchmark_medoids', 'k-medoids against its published form'),
    'draw-medoids': ('draw_medoids', 'draw which tokens of a video a clustering keeps'),
    'draw-training': ('draw_training', 'write what trainings logged as a table and a picture'),
}
"""Each command's module in `fewtokens.cli`, and what it does in a line."""


def make_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {text}' for name, (_, text) in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog='fewtokens',
        usage='fewtokens COMMAND …',
        description='Makes the vision transformer you already have faster: fewer tokens on the way, all of them at the '
        'end.\n\ncommands:\n' + '\n'.join(lines) + '\n\n`fewtokens COMMAND --help` says what a command takes.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = runpy.run_path(str(Path(__file__).parent / 'fewtokens/version.py'))['__version__']
    parser.add_argument('--version', action='version', version=f'fewtokens {version}')
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of those above, then its own options')
    return parser


def main() -> None:
    args = make_parser().parse_args(sys.argv[1:2] or ['--help'])
    module = COMMANDS[args.command][0]
    # As if the tool had been started itself: its usage names it so.
    own = ['fewtokens', args.command] if module == 'search_videos' else [f'fewtokens {args.command}']
    sys.argv = [*own, *sys.argv[2:]]
    run = importlib.import_module('fewtokens.cli.run').run
    run(lambda: importlib.import_module(f'fewtokens.cli.{module}').main())


if __name__ == '__main__':
    main()
