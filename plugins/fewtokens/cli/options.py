"""The tools' options, under OpenMMLab's names."""

import argparse
import ast
import textwrap
from collections.abc import Callable
from typing import Any

import torch

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Says each option's default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraph by paragraph."""
        paragraphs = [' '.join(paragraph.split()) for paragraph in text.split('\n\n')]
        return '\n\n'.join(textwrap.fill(p, width, initial_indent=indent, subsequent_indent=indent) for p in paragraphs)


class CfgOptions(argparse.Action):
    """MMEngine's action for key=value, that takes a reducer's text as it is and says which option it cannot read."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *others: Any
    ) -> None:
        from mmengine.config import DictAction  # here, for not every model is a config's

        read = DictAction(self.option_strings, self.dest, nargs='+')
        for option in values:
            key, equals, value = option.partition('=')
            if not equals:
                raise argparse.ArgumentError(self, f'{option!r} must be key=value')
            if _is_call(value.strip('\'" ')):
                known = getattr(namespace, self.dest, None) or {}
                setattr(namespace, self.dest, {**known, key: value.strip('\'" ')})
                continue
            try:
                read(parser, namespace, [option], *others)
            except (AssertionError, RecursionError) as error:
                text = f'{option!r} cannot be read: brackets must match, and calls cannot be in lists'
                raise argparse.ArgumentError(self, text) from error


def _is_call(text: str) -> bool:
    try:
        return isinstance(ast.parse(text, mode='eval').body, ast.Call)
    except (SyntaxError, ValueError):
        return False


CONFIG = 'config file, or a name such as mmseg::segmenter/….py'


def make_parser(description: str, checkpoint: bool = True, config: str = CONFIG) -> argparse.ArgumentParser:
    """A parser with the options that every tool on a config has, under OpenMMLab's names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    parser.add_argument('config', help=config)
    if checkpoint:
        parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for logs and results; work_dirs/CONFIG if left out')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, as key=value')
    return parser


def add_plugin_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that compare plugins."""
    text = 'a reducer to compare, such as "SharedUpdate(after=8, grid=20)", beside a config\'s own; may be repeated'
    parser.add_argument('--plugin', action='append', default=[], help=text)


def add_timing_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that time random inputs."""
    add_machine_options(parser)
    parser.add_argument('--rounds', type=at_least(1), default=10, help='how many times each row is timed')
    parser.add_argument('--warmup', type=at_least(0), default=2, help='rounds before those, which are not counted')
    parser.add_argument('--json', help='file for the figures')


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools whose main figure is time."""
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32', help='of all tensors')
    parser.add_argument('--threads', type=at_least(1), help="CPU threads; PyTorch's choice if left out")
    add_device_option(parser, 'cuda' if torch.cuda.is_available() else 'cpu')


def add_device_option(parser: argparse.ArgumentParser, default: str = 'cpu') -> None:
    parser.add_argument('--device', type=usable_device, default=default, help='such as cpu, cuda or cuda:1')


def at_least(minimum: int) -> Callable[[str], int]:
    """An option's type: a whole number that is not too small."""

    def number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f'{value} must be at least {minimum}')
        return value

    return number


def usable_device(text: str) -> str:
    """An option's type: a device that tensors can be put on."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on how it was built
        reason = str(error).partition('\n')[0]
        raise argparse.ArgumentTypeError(f'{text!r} cannot be used: {reason}') from error
    return text


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that run a data set through a model."""
    text = 'a reducer, such as "Hourglass(after=10, grid=(28, 28))"'
    parser.add_argument('--plugin', action='append', default=[], help=text)
    parser.add_argument('--sdpa', action='store_true', help="PyTorch's fused attention where the host misses it")
    text = "mixed precision: bfloat16 in a test, MMEngine's in training, which validates in full precision"
    parser.add_argument('--amp', action='store_true', help=text)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started the processes')
    # torchrun and torch.distributed.launch pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
