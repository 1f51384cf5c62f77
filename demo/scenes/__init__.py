"""Procedural scenes with real photographs' textures: data to train and judge small models on, deterministic by seed."""

from .compose import compose_scene
from .textures import CLASSES, load_textures

__all__ = ['CLASSES', 'compose_scene', 'load_textures']
