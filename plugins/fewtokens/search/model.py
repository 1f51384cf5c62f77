"""The model of a video index: built from a config or from open_clip's models, written down, and built again."""

import json
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config
from torch import nn

from ..measure.fingerprint import hash_weights
from ..openmmlab.config import load_config
from ..openmmlab.hook import plugin_lines
from ..openmmlab.model import build_model, without_pretrained
from ..plugin import Plugin, kind_of
from ..retrieval.model import ClipRetrieval
from ..video.clip_models import load_pretrained, read_config, trained_options
from ..video.clustered import VideoPlugin
from ..video.settings import NAME, ClusteringSettings

LOADING = ('frames', 'how', 'rate', 'size')
"""The options of `LoadFrames` that decide what a model sees."""


def from_config(path: str, checkpoint: str | None, cfg_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The setting of a config's model and of its test pipeline's `LoadFrames`.

    Args:
        checkpoint: its weights. Without one, those that the config's `clip` names as pretrained.

    Raises:
        FileNotFoundError, ValueError: there is no such config, or it has no `LoadFrames`, or no weights are named.
    """
    config = load_config(path, cfg_options)
    steps = config.get('test_dataloader', {}).get('dataset', {}).get('pipeline', [])
    loading = next((step for step in steps if step['type'] == 'LoadFrames'), None)
    if loading is None:
        raise ValueError(f'{path} has no LoadFrames in its test pipeline: a config for text-video retrieval is needed')
    model = without_pretrained(config.model) if checkpoint else config.model
    if not checkpoint and not model.clip.get('pretrained'):
        raise ValueError(f"{path} names no pretrained weights: give the model's with --checkpoint")
    setting = _setting(model, {key: loading[key] for key in LOADING if key in loading}, checkpoint)
    return with_clusterings(setting, [line.reducer for line in plugin_lines(config) if line.reducer is not None])


def from_clip(name: str, pretrained: str) -> dict[str, Any]:
    """The setting of a model of open_clip on 12 frames, one a second at most.

    Args:
        pretrained: a tag of open_clip, which downloads the weights, or a file.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: there is no such model.
    """
    try:
        import open_clip
    except ImportError as error:
        raise ImportError('CLIP models need open_clip: pip install "fewtokens[video]"') from error
    described = open_clip.get_model_config(name)
    if described is None:
        raise ValueError(f'open_clip has no model {name!r}; it has {", ".join(open_clip.list_models())}')
    clip = dict(name=name, pretrained=pretrained, **trained_options(name, pretrained))
    model = dict(type=ClipRetrieval.__name__, clip=clip)
    return _setting(model, dict(size=described['vision_cfg'].get('image_size', 224)), None)


def _setting(model: Any, loading: dict[str, Any], checkpoint: str | None) -> dict[str, Any]:
    place = checkpoint and os.path.abspath(checkpoint)
    setting: dict[str, Any] = dict(model=dict(model), loading=loading, checkpoint=place)
    clip = setting['model']['clip'] = dict(setting['model']['clip'])
    if isinstance(clip.get('config'), str):
        # The index keeps the architecture itself: the file may change or go.
        clip['config'] = read_config(clip['config'])
    if os.path.isfile(clip.get('pretrained') or ''):
        clip['pretrained'] = os.path.abspath(clip['pretrained'])
    # In JSON's types, as an index gives it back.
    return json.loads(json.dumps(setting))


def with_clusterings(setting: dict[str, Any], plugins: Sequence[Plugin]) -> dict[str, Any]:
    """A setting with these clusterings, if there are any, in place of its own.

    Raises:
        ValueError: one clusters no videos.
    """
    calls: list[ClusteringSettings] = []
    for plugin in plugins:
        if not isinstance(plugin, VideoPlugin):
            raise ValueError(f'there is no video plugin {kind_of(plugin)!r}; there is {NAME}')
        calls += plugin.calls
    return _with_clustering(setting, VideoPlugin(tuple(calls))) if plugins else setting


def saved(setting: dict[str, Any]) -> dict[str, Any]:
    """A setting as an index keeps it: in JSON's types, clusterings by their text."""
    clustering = _clustering_of(setting)
    return _with_clustering(setting, clustering.save()) if isinstance(clustering, VideoPlugin) else setting


def read_saved(setting: dict[str, Any]) -> dict[str, Any]:
    """The setting that `saved` was given.

    Raises:
        ValueError: a clustering's text is wrong.
    """
    clustering = _clustering_of(setting)
    texts = [clustering] if isinstance(clustering, str) else clustering
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return _with_clustering(setting, VideoPlugin.read(texts))
    return setting


def _clustering_of(setting: dict[str, Any]) -> Any:
    model = setting.get('model')
    return model.get('clustering') if isinstance(model, dict) else None


def _with_clustering(setting: dict[str, Any], clustering: Any) -> dict[str, Any]:
    return setting | dict(model=setting['model'] | dict(clustering=clustering))


def move_checkpoint(setting: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """A setting whose weights are found in another place."""
    place = os.path.abspath(checkpoint)
    if setting['checkpoint'] is not None:
        return setting | dict(checkpoint=place)
    model = setting['model']
    return setting | dict(model=model | dict(clip=model['clip'] | dict(pretrained=place)))


def build(setting: dict[str, Any], device: str = 'cpu') -> tuple[nn.Module, dict[str, Any]]:
    """Builds a setting's model and fills it with its weights.

    Returns:
        the model, and the setting as `saved`, with a hash of the weights: what an index is told of the model.

    Raises:
        FileNotFoundError, ValueError: the weights aren't there, or aren't this model's.
    """
    options, clip = dict(setting['model']), setting['model']['clip']
    if isinstance(options.get('clustering'), VideoPlugin):
        calls = options['clustering'].calls
        options['clustering'] = calls[0] if len(calls) == 1 else calls
    model = build_model(Config(dict(model=options)), setting['checkpoint'])
    if setting['checkpoint'] is None:
        try:
            load_pretrained(model.clip, clip.get('name'), clip['pretrained'])
        except (RuntimeError, KeyError, pickle.UnpicklingError, EOFError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(f'{clip["pretrained"]!r} does not fit {clip.get("name")}: {reason}') from error
    return model.to(device), saved(setting) | dict(weights=hash_weights(model))


def make_loader(setting: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What turns `dict(video_path=…)` into one with the `frames` that a setting's model sees."""
    from ..retrieval.transforms import LoadFrames

    return LoadFrames(**setting['loading'])
