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
from ..retrieval.model import ClipRetrieval
from ..video.clip_models import load_pretrained, read_config, trained_options
from ..video.settings import parse_clustering

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
    return with_clusterings(setting, [line.text for line in plugin_lines(config) if line.reducer is not None])


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
    setting = dict(model=dict(model), loading=loading, checkpoint=checkpoint and os.path.abspath(checkpoint))
    clip = setting['model']['clip'] = dict(setting['model']['clip'])
    if isinstance(clip.get('config'), str):
        # The index keeps the architecture itself: the file may change or go.
        clip['config'] = read_config(clip['config'])
    if os.path.isfile(clip.get('pretrained') or ''):
        clip['pretrained'] = os.path.abspath(clip['pretrained'])
    return _copy(setting)


def with_clusterings(setting: dict[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    """A setting with the clusterings of these texts, if there are any, in place of its own.

    Raises:
        ValueError: see `parse_clustering`.
    """
    for text in plugins:
        parse_clustering(text)
    setting = _copy(setting)
    if plugins:
        setting['model']['clustering'] = plugins[0] if len(plugins) == 1 else list(plugins)
    return setting


def move_checkpoint(setting: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """A setting whose weights are found in another place."""
    setting = _copy(setting)
    if setting['checkpoint'] is None:
        setting['model']['clip']['pretrained'] = os.path.abspath(checkpoint)
    else:
        setting['checkpoint'] = os.path.abspath(checkpoint)
    return setting


def build(setting: dict[str, Any], device: str = 'cpu') -> tuple[nn.Module, dict[str, Any]]:
    """Builds a setting's model and fills it with its weights.

    Returns:
        the model, and the setting with a hash of the weights: what an index is told of the model.

    Raises:
        FileNotFoundError, ValueError: the weights aren't there, or aren't this model's.
    """
    model = build_model(Config(dict(model=setting['model'])), setting['checkpoint'])
    clip = setting['model']['clip']
    if setting['checkpoint'] is None:
        try:
            load_pretrained(model.clip, clip.get('name'), clip['pretrained'])
        except (RuntimeError, KeyError, pickle.UnpicklingError, EOFError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(f'{clip["pretrained"]!r} does not fit {clip.get("name")}: {reason}') from error
    return model.to(device), setting | dict(weights=hash_weights(model))


def _copy(setting: dict[str, Any]) -> dict[str, Any]:
    """In JSON's types, as an index gives it back."""
    return json.loads(json.dumps(setting))


def make_loader(setting: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What turns `dict(video_path=…)` into one with the `frames` that a setting's model sees."""
    from ..retrieval.transforms import LoadFrames

    return LoadFrames(**setting['loading'])
