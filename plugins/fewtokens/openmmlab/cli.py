"""What the tools share: OpenMMLab's options, and errors in one line."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config, DictAction

from ..measure.files import shown
from .config import load_config
from .distributed import join_on_cpu, leave
from .registry import VIDEO, Plugin, as_text, build_reducer, parse_plugin


def make_parser(description: str, checkpoint: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every tool on a config has, under OpenMMLab's names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or a name such as mmseg::segmenter/….py')
    if checkpoint:
        parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for logs and results; work_dirs/CONFIG if left out')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings to override, as key=value')
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
    own = [hook.reducer for hook in _plugin_lines(config) if hook.get('reducer')] + _take_clustering(config)
    return {as_text(setting): build_reducer(setting) for setting in own} | {text: parse_plugin(text) for text in texts}


def _plugin_lines(config: Config) -> list[Any]:
    return [hook for hook in config.get('custom_hooks') or [] if hook['type'] == 'FewTokensHook']


def _take_clustering(config: Config) -> list[Any]:
    model = config.get('model') or {}
    clustering = model.get('clustering')
    if clustering is None:
        return []
    model.clustering = None
    after = model.get('after', 6)
    if isinstance(clustering, str):
        return [clustering]
    if isinstance(clustering, dict):
        return [dict(clustering, type=VIDEO, after=after)]
    # A schedule's text has the numbers that differ as sequences.
    shared = {key: value for key, value in clustering[0].items() if key not in ('segments', 'clusters')}
    stages = {key: tuple(stage.get(key) for stage in clustering) for key in ('segments', 'clusters')}
    return [dict(shared, type=VIDEO, **stages, after=tuple(after))]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of the tools that run a data set through a model."""
    parser.add_argument('--plugin', help='a reducer, such as "Hourglass(after=10, grid=(28, 28))"')
    parser.add_argument('--sdpa', action='store_true', help="PyTorch's fused attention where the host misses it")
    parser.add_argument('--amp', action='store_true', help='mixed precision')
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
    add_plugin(config, parse_plugin(args.plugin) if args.plugin else None, args.sdpa)
    return config


def add_plugin(config: Config, reducer: Plugin | None, sdpa: bool) -> None:
    """Adds the plugin line to a config; fails if the config has one with a reducer already.

    A clustering of videos takes the place of the model's own.
    """
    hooks = list(config.get('custom_hooks') or [])
    present = _plugin_lines(config)
    if reducer is not None and any(hook.get('reducer') for hook in present):
        raise ValueError(
            'the config has a FewTokensHook with a reducer already: leave --plugin out, or take it out there'
        )
    setting: dict[str, Any] = dict(type='FewTokensHook', sdpa=sdpa or any(hook.get('sdpa') for hook in present))
    for hook in present:
        hooks.remove(hook)
        setting = {**hook, **setting}
    if reducer is not None:
        setting['reducer'] = repr(reducer)
    if setting['sdpa'] or setting.get('reducer'):
        hooks.append(setting)
    config.custom_hooks = hooks


def run(main: Callable[[], None]) -> None:
    """Runs a tool's main function; what a user can mend is one line, and exit status 2."""
    if hasattr(sys.stdout, 'reconfigure'):
        # As stderr is: a terminal may lack letters that a file's name has.
        sys.stdout.reconfigure(errors='backslashreplace')
    status = 0
    try:
        main()
    except (ValueError, OSError, NotImplementedError, ImportError) as error:
        text = str(error)
        if 'in DataLoader worker' in text:
            text = text.strip().rpartition('\n')[2].partition(': ')[2]  # below the worker's traceback
        print(f'error: {shown(text)}', file=sys.stderr)
        status = 2
    leave()  # not sooner: the error has held what main used
    if status:
        sys.exit(status)
