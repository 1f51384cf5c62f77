"""What the rest of the package knows about a backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from .attention import AttentionContext
from .layout import Layout, WholeGrid

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
    """A backbone with a chain of blocks over tokens [B, N, C] that stand on a grid."""

    family: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = dict(iters=5, k=20, temperature=50.0)
    """The published settings for this family."""
    relative_positions: ClassVar[bool] = False
    """Whether attention depends on where tokens stand on the grid."""

    grid_is: ClassVar[str] = 'tokens at its nominal input size'
    """What `nominal_grid` is the size of."""

    path: str
    """Of the backbone in the model, '' for the model itself."""
    backbone: nn.Module
    entry: nn.Module
    """Runs first in every forward pass, on images [B, 3, H, W]."""
    blocks: Sequence[nn.Module]
    taps: tuple[int, ...]
    """Indices of the blocks whose output the backbone's caller sees."""
    nominal_grid: Grid
    """The grid of the input size that the model was built for; of a window for windowed backbones."""
    norm: nn.Module | None = None
    """Final norm, between the last block and its tap."""
    num_prefix_tokens: int = 0
    """Class and register tokens at the front."""
    head: Head | None = None

    def grid_of(self, output: Any) -> Grid:
        """(H, W) of the tokens, from the output of `entry`."""
        raise NotImplementedError

    def check_grid(self, grid: Grid) -> None:
        """Raises a ValueError where the host itself takes no input of that grid."""

    def region_end(self, index: int) -> int:
        """The number of blocks until tokens reduced before that block must be whole again."""
        return len(self.blocks)

    def layout(self, args: tuple, grid: Grid | None) -> Layout:
        """How the tokens lie in a block's arguments, while they are whole."""
        return WholeGrid(self.num_prefix_tokens, grid)

    def arguments(self, tokens: Tensor, layout: Layout, args: tuple) -> tuple:
        """A block's arguments with these tokens in the place of its own."""
        return tokens, *args[1:]

    def place_attention(self, block: nn.Module, context: Callable[[], AttentionContext | None]) -> list[Any]:
        """Makes the block's attention fit reduced tokens whenever `context` returns something.

        Returns handles with a `remove` method.
        """
        raise NotImplementedError


def class_names(module: nn.Module) -> set[str]:
    """Qualified names of a module's class and its bases: classes are known by name, so that no host is imported."""
    return {f'{c.__module__}.{c.__qualname__}' for c in type(module).__mro__}
