"""What `attach` and `use_sdpa` return: everything that was put on a model, and the way to take it off."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn

Attached = TypeVar('Attached', bound='Attachment')


class Attachment:
    """Hooks and replaced calls on a model. `remove()` takes them off; usable as a context manager."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def __enter__(self: Attached) -> Attached:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leaves the model as it was. Safe to repeat."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        forget_compiled()

    def summary(self) -> str:
        """A table of what was put where."""
        raise NotImplementedError


def forget_compiled() -> None:
    """Lets `torch.compile` see hooks that came or went: what it has compiled doesn't look for them."""
    if 'torch._dynamo' in sys.modules:
        sys.modules['torch._dynamo'].reset()


_DATA_PARALLEL = (
    'fewtokens does not work inside nn.DataParallel, whose copies share the calls of one model: use '
    'DistributedDataParallel, or one device'
)
_SHARDED = (
    'of models whose weights are sharded, fewtokens works inside FullyShardedDataParallel alone, attached before the '
    'model is wrapped; DistributedDataParallel has no such limit'
)


def refuse_data_parallel(model: nn.Module) -> None:
    """Raises a ValueError where the model is wrapped, or has a part that is."""
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise ValueError(_DATA_PARALLEL)


def refuse_replica(module: nn.Module) -> None:
    """Raises a RuntimeError in a copy that nn.DataParallel made of a module."""
    if getattr(module, '_is_replica', False):
        raise RuntimeError(_DATA_PARALLEL)


def refuse_sharded(model: nn.Module) -> None:
    """Raises a ValueError where PyTorch shards the model's weights, or those of a part."""
    if any(_is_a(module, 'FullyShardedDataParallel', 'FSDPModule') for module in model.modules()):
        raise ValueError(_SHARDED)


def refuse_sharded_training(blocks: Iterable[nn.Module]) -> None:
    """Raises a RuntimeError for blocks of `fully_shard`: it waits for gradients of all that they return."""
    if torch.is_grad_enabled() and any(_is_a(block, 'FSDPModule') for block in blocks):
        raise RuntimeError(_SHARDED)


def _is_a(module: nn.Module, *names: str) -> bool:
    """By name, for not every PyTorch has these classes."""
    return any(cls.__name__ in names for cls in type(module).__mro__)


def attached(model: nn.Module) -> list[Attachment]:
    """What is attached anywhere in the model, for instance in a deepcopy of an attached one."""
    found = {}
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            owner = getattr(hook, '__self__', None)
            if isinstance(owner, Attachment):
                found[id(owner)] = owner
    return list(found.values())
