"""Configs as the tools' options make them: with a plugin line, or with plugins to compare."""

import argparse
import copy
import os
from typing import Any

from mmengine.config import Config

from ..openmmlab.config import load_config
from ..openmmlab.distributed import join_on_cpu
from ..openmmlab.hook import plugin_lines
from ..openmmlab.registry import as_setting, parse_plugin
from ..plugin import Plugin
from ..video.clustered import VideoPlugin
from ..video.settings import AFTER, read_clustering


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
    own = [str(line.text) for line in plugin_lines(config) if line.reducer is not None]
    if len(own) > 1:
        raise ValueError(f'the config has {len(own)} FewTokensHooks with a reducer, {" and ".join(own)}: leave one')
    if own and reducer is not None:
        raise ValueError(
            'the config has a FewTokensHook with a reducer already: leave --plugin out, or take it out there'
        )
    if sdpa or reducer is not None:
        line = dict(type='FewTokensHook', sdpa=sdpa, reducer=None if reducer is None else as_setting(reducer))
        config.custom_hooks = [*(config.get('custom_hooks') or []), line]


def choose_reducers(config: Config, texts: list[str]) -> dict[str, Plugin]:
    """Plugins to compare, by their text: the config's own, its model's own clustering of videos, those asked for."""
    lines = {str(line.text): line.reducer for line in plugin_lines(config) if line.reducer is not None}
    model: Any = config.get('model') or {}
    own: dict[str, Plugin] = {}
    if model.get('clustering') is not None:
        plugin = VideoPlugin(read_clustering(model.clustering, model.get('after', AFTER)))
        own[str(plugin)] = plugin
    return lines | own | {text: parse_plugin(text) for text in texts}


def host_config(config: Config) -> Config:
    """A config of the host that plugins are compared with: a retrieval model without its own clustering."""
    if (config.get('model') or {}).get('clustering') is None:
        return config
    host = copy.deepcopy(config)
    host.model.clustering = None
    return host
