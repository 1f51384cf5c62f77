"""Registers data sets, transforms, metric and model for configs: `custom_imports = dict(imports=[…, this module])`."""

from . import datasets, metrics, model, transforms  # noqa: F401
