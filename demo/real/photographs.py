"""Photographs as the real model takes them."""

import numpy as np
import torch
from torch import Tensor

from fewtokens.report.photographs import bundled_photographs, read_photographs, square

__all__ = ['as_input', 'bundled_photographs', 'read_photographs', 'square']

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, by which DINOv2's images are normalized."""


def as_input(photograph: np.ndarray) -> Tensor:
    """RGB [H, W, 3] uint8 as what the model takes, [1, 3, H, W]."""
    values = torch.from_numpy(photograph).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None].contiguous()
