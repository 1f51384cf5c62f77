"""How well a reduced model's outputs agree with the full one's, token by token."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hosts import Host

Call = Callable[[nn.Module, Tensor], Any]


@torch.no_grad()
def final_tokens(host: Host, model: nn.Module, inputs: Tensor, call: Call) -> list[Tensor]:
    """Runs the model, and returns what the backbone's caller sees of the tokens of the grid: [B, N, C] each.

    Those are all outputs of a backbone that returns tokens. One that may be asked for any block's (timm's, open_clip's)
    gives those behind its final norm. Class and register tokens are left out.
    """
    with _watched(host) as found:
        call(model, inputs)
    if not found:
        raise ValueError(f'{host.path or type(model).__name__} never ran: nothing can be compared')
    return found


@contextmanager
def _watched(host: Host) -> Iterator[list[Tensor]]:
    found: list[Tensor] = []
    prefix, of_backbone = host.num_prefix_tokens, host.taps is not None

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        if of_backbone:
            found.extend(_as_tokens(value, prefix) for value in _tensors(output))
        else:
            found.append(host.tokens(output)[:, prefix:])

    handle = (host.backbone if of_backbone else host.norm or host.blocks[-1]).register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    """Those with a place for tokens, in whatever the backbone returned."""
    if isinstance(output, Tensor):
        if output.ndim > 2:
            yield output
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)
    elif isinstance(output, dict):
        yield from _tensors(list(output.values()))


def _as_tokens(value: Tensor, prefix: int) -> Tensor:
    """Of feature maps [B, C, H, W], or of tokens, prefix tokens first."""
    return value.flatten(2).transpose(1, 2) if value.ndim == 4 else value[:, prefix:]


def cosine(full: list[Tensor], reduced: list[Tensor]) -> float:
    """Mean cosine of tokens that belong together, of the output in which it is lowest; -1 if any isn't finite."""
    means = [F.cosine_similarity(a.float(), b.float(), dim=-1).mean() for a, b in zip(full, reduced, strict=True)]
    lowest = min(float(mean) for mean in means)
    return lowest if all(mean.isfinite() for mean in means) else -1.0
