"""What the rest of the package knows about a backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .attention import AttentionContext

Grid = tuple[int, int]


@dataclass(frozen=True)
class Head:
    """A head that works token by token: where tokens enter it, and where its class map leaves it."""

    name: str
    entry: nn.Module
    """Called with tokens [B, N, C] first."""
    exit: nn.Module
    """Returns the class map, [B, N, classes]."""


@dataclass(frozen=True)
class Host:
    """A backbone with a chain of blocks over one grid of tokens [B, prefix + H*W, C]."""

    family: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = dict(iters=5, k=20, temperature=50.0)
    """The published settings for this family."""
    relative_positions: ClassVar[bool] = False
    """Whether attention depends on where tokens stand on the grid."""

    path: str
    """Of the backbone in the model, '' for the model itself."""
    backbone: nn.Module
    """A forward pass begins and ends with it."""
    blocks: Sequence[nn.Module]
    taps: tuple[int, ...]
    """Indices of the blocks whose output the backbone's caller sees."""
    norm: nn.Module | None
    """Final norm, between the last block and its tap."""
    num_prefix_tokens: int
    """Class and register tokens at the front."""
    grid_source: nn.Module
    """Its output tells the grid: see `grid_of`."""
    nominal_grid: Grid
    """The grid of the input size that the model was built for."""
    head: Head | None = None

    def grid_of(self, output: Any) -> Grid:
        """(H, W) of the tokens, from the output of `grid_source`."""
        raise NotImplementedError

    def place_attention(self, block: nn.Module, context: Callable[[], AttentionContext | None]) -> list[Any]:
        """Makes the block's attention fit reduced tokens whenever `context` returns something.

        Returns handles with a `remove` method.
        """
        raise NotImplementedError

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix tokens [B, P, C] and the others."""
        return tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]

    def join(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat([prefix, tokens], dim=1) if self.num_prefix_tokens else tokens


def class_names(module: nn.Module) -> set[str]:
    """Qualified names of a module's class and its bases: classes are known by name, so that no host is imported."""
    return {f'{c.__module__}.{c.__qualname__}' for c in type(module).__mro__}
