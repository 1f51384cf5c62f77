"""What the tools share: OpenMMLab's options, and errors in one line."""

import argparse
import ast
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config, DictAction

from ..measure.files import shown
from ..openmmlab.config import config_mistake, load_config
from ..openmmlab.distributed import join_on_cpu, leave
from ..openmmlab.hook import plugin_lines
from ..openmmlab.registry import VIDEO, as_text, parse_plugin
from ..plugin import Plugin
from ..video.clustered import VideoPlugin
from ..video.settings import build_clustering


class CfgOptions(DictAction):
    """MMEngine's action for key=value, that takes a reducer's text as it is and says which option it cannot read."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Sequence[str], *others: Any
    ) -> None:
        for option in values:
            key, equals, value = option.partition('=')
            if not equals:
                raise argparse.ArgumentError(self, f'{option!r} must be key=value')
            if _is_call(value.strip('\'" ')):
                known = getattr(namespace, self.dest, None) or {}
                setattr(namespace, self.dest, {**known, key: value.strip('\'" ')})
                continue
            try:
                super().__call__(parser, namespace, [option], *others)
            except (AssertionError, RecursionError) as error:
                text = f'{option!r} cannot be read: brackets must match, and calls cannot be in lists'
                raise argparse.ArgumentError(self, text) from error


def _is_call(text: str) -> bool:
    try:
        return isinstance(ast.parse(text, mode='eval').body, ast.Call)
    except (SyntaxError, ValueError):
        return False


def make_parser(description: str, checkpoint: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every tool on a config has, under OpenMMLab's names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or a name such as mmseg::segmenter/….py')
    if checkpoint:
        parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for logs and results; work_dirs/CONFIG if left out')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, as key=value')
    return parser


def add_plugin_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that compare plugins."""
    text = "a reducer to compare, beside the config's own; may be repeated"
    parser.add_argument('--plugin', action='append', default=[], help=text)


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


def choose_reducers(config: Config, texts: list[str]) -> dict[str, Plugin]:
    """Plugins to compare, by their text: the config's own, then those asked for.

    A retrieval model's own clustering is taken out of its setting: the model itself is the host.
    """
    lines = {line.text: line.reducer for line in plugin_lines(config) if line.reducer is not None}
    return lines | _take_clustering(config) | {text: parse_plugin(text) for text in texts}


def _take_clustering(config: Config) -> dict[str, Plugin]:
    model = config.get('model') or {}
    clustering, after = model.get('clustering'), model.get('after', 6)
    if clustering is None:
        return {}
    model.clustering = None
    text = _clustering_text(clustering, after)
    stages, places = build_clustering(clustering, after)
    return {text: VideoPlugin(text, stages, places if isinstance(places, int) else tuple(places))}


def _clustering_text(clustering: Any, after: Any) -> str:
    if isinstance(clustering, str):
        return clustering
    if isinstance(clustering, dict):
        return as_text(dict(clustering, type=VIDEO, after=after))
    places = [after] * len(clustering) if isinstance(after, int) else after
    if all(isinstance(stage, dict) for stage in clustering):
        shared, *others = (
            {key: value for key, value in stage.items() if key not in ('segments', 'clusters')} for stage in clustering
        )
        if all(other == shared for other in others):
            # A schedule's text has the numbers that differ as sequences.
            numbers = {key: tuple(stage.get(key) for stage in clustering) for key in ('segments', 'clusters')}
            return as_text(dict(shared, type=VIDEO, **numbers, after=tuple(places)))
    return ', then '.join(_clustering_text(stage, place) for stage, place in zip(clustering, places))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that run a data set through a model."""
    text = 'a reducer, such as "Hourglass(after=10, grid=(28, 28))"'
    parser.add_argument('--plugin', action='append', default=[], help=text)
    parser.add_argument('--sdpa', action='store_true', help="PyTorch's fused attention where the host misses it")
    text = "mixed precision: bfloat16 in a test, MMEngine's in training, which validates in full precision"
    parser.add_argument('--amp', action='store_true', help=text)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torchrun and torch.distributed.launch pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def prepare_config(args: argparse.Namespace) -> Config:
    """The config with the run options in it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    join_on_cpu(config)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    if len(args.plugin) > 1:
        raise ValueError(f'--plugin {" and ".join(args.plugin)}: a model takes one')
    add_plugin(config, parse_plugin(*args.plugin) if args.plugin else None, args.sdpa)
    return config


def add_plugin(config: Config, reducer: Plugin | None, sdpa: bool) -> None:
    """Adds a plugin line to a config. A clustering of videos takes the place of the model's own.

    Raises:
        ValueError: the config has a reducer already, or more than one; a hook of it is wrong.
    """
    own = [line.text for line in plugin_lines(config) if line.reducer is not None]
    if len(own) > 1:
        raise ValueError(f'the config has {len(own)} FewTokensHooks with a reducer, {" and ".join(own)}: leave one')
    if own and reducer is not None:
        raise ValueError(
            'the config has a FewTokensHook with a reducer already: leave --plugin out, or take it out there'
        )
    if sdpa or reducer is not None:
        line = dict(type='FewTokensHook', sdpa=sdpa, reducer=None if reducer is None else repr(reducer))
        config.custom_hooks = [*(config.get('custom_hooks') or []), line]


def run(main: Callable[[], None]) -> None:
    """Runs a tool's main function; what a user can mend is one line, and exit status 2."""
    if hasattr(sys.stdout, 'reconfigure'):
        # As stderr is: a terminal may lack letters that a file's name has.
        sys.stdout.reconfigure(errors='backslashreplace')
    status = 0
    try:
        main()
    except Exception as error:
        mendable = isinstance(error, (ValueError, OSError, NotImplementedError, ImportError))
        text = str(error) if mendable else config_mistake(error)
        if text is None:
            raise
        if 'in DataLoader worker' in text:
            text = text.strip().rpartition('\n')[2].partition(': ')[2]  # below the worker's traceback
        print(f'error: {shown(text)}', file=sys.stderr)
        status = 2
    leave()  # not sooner: the error has held what main used
    if status:
        sys.exit(status)
