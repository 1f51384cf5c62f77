"""Builds OpenMMLab models and fills them with weights, safely."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from ..checkpoints.reading import check_weights, load_checkpoint, state_dict_of
from .checkpoints import dataset_meta_of


def load_weights(model: nn.Module, checkpoint: str | os.PathLike) -> None:
    """Fills a model with a checkpoint's weights, and gives it `dataset_meta`: what the checkpoint says of its classes.

    Raises what `load_checkpoint`, `state_dict_of` and `check_weights` do.
    """
    loaded = load_checkpoint(checkpoint)
    state = state_dict_of(loaded, checkpoint)
    check_weights(model, state, str(checkpoint))
    model.load_state_dict(state, strict=False)
    model.dataset_meta = dataset_meta_of(loaded)


def build_model(
    config: Config, checkpoint: str | os.PathLike | None = None, device: str | torch.device = 'cpu'
) -> nn.Module:
    """Builds a config's model in evaluation mode, with a checkpoint's weights or, without one, random ones.

    Pretrained weights that the config names are not fetched.

    Raises:
        FileNotFoundError, ValueError: the checkpoint isn't there, isn't safe, or isn't this model's.
    """
    # Initialisation logs a paragraph for every parameter.
    with quiet_log():
        model = MODELS.build(without_pretrained(config.model))
        if checkpoint is None and torch.device(device).type != 'meta':
            model.init_weights()
    if checkpoint is not None:
        load_weights(model, checkpoint)
    if torch.device(device).type == 'cpu':
        model = revert_sync_batchnorm(model)
    model.to(device)
    model.eval()
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside wrappers for distribution and test-time augmentation."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


@contextmanager
def quiet_log() -> Iterator[None]:
    """MMEngine's logger says nothing but errors."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def without_pretrained(config: Any) -> Any:
    """A config's copy that names no pretrained weights anywhere."""
    if isinstance(config, dict):
        rest = {key: without_pretrained(value) for key, value in config.items() if key != 'pretrained'}
        kind = config.get('type')
        if str(getattr(kind, '__name__', kind)).endswith('TIMMBackbone'):
            # It fetches weights unless it is told not to.
            rest |= dict(pretrained=False, checkpoint_path='')
        if isinstance(rest.get('init_cfg'), dict) and rest['init_cfg'].get('type') == 'Pretrained':
            rest.pop('init_cfg')
        return type(config)(rest)
    return type(config)(map(without_pretrained, config)) if isinstance(config, (list, tuple)) else config
