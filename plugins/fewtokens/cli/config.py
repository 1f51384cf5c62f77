"""Configs as the tools' options make them: with a plugin line, or with plugins to compare."""

import argparse
import os
from typing import Any

from mmengine.config import Config

from ..openmmlab.config import load_config
from ..openmmlab.distributed import join_on_cpu
from ..openmmlab.hook import plugin_lines
from ..openmmlab.registry import VIDEO, as_text, parse_plugin
from ..plugin import Plugin
from ..video.clustered import VideoPlugin
from ..video.settings import build_clustering


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
