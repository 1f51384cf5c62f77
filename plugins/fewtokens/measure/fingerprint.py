"""What is in a model and in a tensor, as a hash: figures that were kept are known by it."""

import hashlib

import torch
from torch import Tensor, nn


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of a model's weights, wherever and in whatever file they are kept."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype} '.encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


def hash_tensor(tensor: Tensor) -> str:
    digest = hashlib.sha256(f'{tuple(tensor.shape)} {tensor.dtype} '.encode())
    digest.update(_content(tensor))
    return digest.hexdigest()


def _content(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
