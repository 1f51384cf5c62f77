"""Versions of PyTorch and of the libraries that hosts come from."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

OLDEST = dict(timm=('timm', '1.0.16'), transformers=('transformers', '5.20'), open_clip=('open-clip-torch', '2.26'))
"""Of a library, the package's name and the first version whose backbones are built as the hosts here know them."""


def release(text: str) -> tuple[int, ...]:
    """(2, 14, 1) of '2.14.1+cpu'."""
    found: Any = re.match(r'\d+(\.\d+)*', text)
    return tuple(int(part) for part in found[0].split('.'))


TORCH = release(torch.__version__)


def refuse_old(module: nn.Module) -> None:
    """Raises a ValueError for a module of a library that is too old."""
    libraries = {cls.__module__.partition('.')[0] for cls in type(module).__mro__}
    for name, oldest in (OLDEST[library] for library in libraries & OLDEST.keys()):
        try:
            installed = version(name)
        except PackageNotFoundError:  # A copy in the user's own code says nothing of itself.
            continue
        if release(installed) < release(oldest):
            raise ValueError(
                f'{name} {installed} builds {type(module).__name__} differently from what fewtokens knows: '
                f'{name} {oldest} or newer fits'
            )
