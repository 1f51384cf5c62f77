"""What merging does to a model's features: its tokens block by block, with and without."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..hosts import Host
from ..ops.grid import Grid
from .agreement import Call, cosine, final_tokens
from .variants import Variant


@dataclass(frozen=True)
class Features:
    """What a model makes of one picture.

    Attributes:
        blocks: tokens of the grid after each block, [N, C].
        outputs: what the backbone's caller sees of them, [1, N, C] each.
        grid: (H, W) of the last block's tokens.
        clusters: [H, W] int64, which of the merged tokens each was in; None of the full model.
    """

    blocks: list[Tensor]
    outputs: list[Tensor]
    grid: Grid
    clusters: np.ndarray | None = None

    @property
    def map(self) -> np.ndarray:
        """[H, W, C] of the last block, after the final norm where there is one."""
        last = self.outputs[-1][0]
        return (last if len(last) == len(self.blocks[-1]) else self.blocks[-1]).float().unflatten(0, self.grid).numpy()


@torch.no_grad()
def look(host: Host, model: nn.Module, variant: Variant, picture: Tensor, call: Call) -> Features:
    """The features of a picture [1, 3, H, W], with what the variant puts on the model."""
    with variant.applied(model) as reduction, _recorded(host) as (blocks, grids):
        outputs = [tokens.cpu() for tokens in final_tokens(host, model, picture, call)]
        clusters = None if reduction is None else reduction.cluster_map
    return Features(blocks, outputs, grids[-1], None if clusters is None else clusters[0].cpu().numpy())


@contextmanager
def _recorded(host: Host) -> Iterator[tuple[list[Tensor], list[Grid]]]:
    """Tokens after each block, and their grids, while a model runs."""
    blocks: list[Tensor] = []
    grids: list[Grid] = []
    handles = []

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        grids.append(host.grid(args, kwargs, output))

    def keep(index: int):
        def leave(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            others = args[1:] if args else ()
            named = {name: value for name, value in kwargs.items() if name != host.argument}
            blocks.append(host.tokens(output)[0, host.num_prefix_tokens :].cpu())
            grids.append(host.layout(index, others, named, grids[0]).extent)

        return leave

    handles.append(host.entry.register_forward_hook(enter, with_kwargs=True))
    for index, block in enumerate(host.blocks):
        handles.append(block.register_forward_hook(keep(index), with_kwargs=True))
    try:
        yield blocks, grids
    finally:
        for handle in handles:
            handle.remove()


def agreement(full: Features, reduced: Features) -> tuple[float, np.ndarray]:
    """Mean cosine of tokens that belong together: of the output in which it is lowest, and after each block."""
    by_block = [F.cosine_similarity(a.float(), b.float(), dim=-1).mean() for a, b in zip(full.blocks, reduced.blocks)]
    return cosine(full.outputs, reduced.outputs), np.array([float(value) for value in by_block])
