"""How tokens lie in a block's input, and what a reducer sees of them."""

from dataclasses import dataclass, replace
from typing import ClassVar, Optional, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.grid import Grid, pair


@dataclass(frozen=True)
class WholeGrid:
    """Prefix tokens, then the tokens of one grid: [B, prefix + H*W, C]. A reducer sees the whole grid."""

    num_prefix_tokens: int
    grid: Grid | None
    """(H, W); None for tokens on no grid."""

    @property
    def extent(self) -> Grid:
        """(H, W) of all tokens of an image, where they stand on a grid."""
        return cast(Grid, self.grid)

    @property
    def count(self) -> int:
        """Tokens of an image, with prefix tokens."""
        return self.num_prefix_tokens + self.extent[0] * self.extent[1]

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix tokens, and the others as a reducer sees them."""
        return tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]

    def join(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([prefix, tokens], dim=1) if self.num_prefix_tokens else tokens

    def reduced(self, clusters: Grid | None) -> 'WholeGrid':
        """The layout after a reducer left that grid."""
        return replace(self, grid=clusters)

    def per_token(self, values: Tensor) -> Tensor:
        """A value for each of the reducer's tokens as one for each token of the block, 0 for prefix tokens."""
        return F.pad(values, (self.num_prefix_tokens, 0))

    def locate(self, labels: Tensor, after: 'Layout') -> Tensor:
        """The reducer's labels as positions among all reduced tokens of an image, [B, H*W]."""
        return labels


@dataclass(frozen=True)
class Windows:
    """The tokens of a grid [B, H*W, C]. A reducer sees every window, made whole with zeros, as a sample of its own.

    Windows are cut from the upper left, without a shift.
    """

    num_prefix_tokens: ClassVar[int] = 0

    extent: Grid
    """(H, W) of all tokens of an image."""
    grid: Grid
    """(h, w) of a window."""
    unreduced: Optional['Windows'] = None
    """Of the tokens that these stand for; None for tokens that are whole."""

    @property
    def count(self) -> int:
        """Tokens of an image."""
        return self.extent[0] * self.extent[1]

    @property
    def counts(self) -> Grid:
        """How many windows there are below and beside each other."""
        return pair(-(-side // cell) for side, cell in zip(self.extent, self.grid))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """No prefix tokens; [B * windows, h*w, C]."""
        return tokens[:, :0], self.cut(self.pad(tokens)).flatten(0, 2)

    def join(self, prefix: Tensor | None, windows: Tensor) -> Tensor:
        """The inverse of `split`."""
        return self.crop(self.uncut(windows.unflatten(0, (-1, *self.counts))))

    def pad(self, tokens: Tensor) -> Tensor:
        """[B, H*W, C] as an image of whole windows, zeros below and beside it."""
        down, across = (n * cell - side for n, cell, side in zip(self.counts, self.grid, self.extent))
        image = tokens.unflatten(1, self.extent)
        # Padding by nothing copies too.
        return F.pad(image, (0, 0, 0, across, 0, down)) if down or across else image

    def crop(self, image: Tensor) -> Tensor:
        """The inverse of `pad`: what stands in the padding is dropped."""
        return image[:, : self.extent[0], : self.extent[1]].flatten(1, 2)

    def cut(self, image: Tensor) -> Tensor:
        """An image of whole windows as [B, rows, columns, h*w, C]."""
        (rows, columns), (h, w) = self.counts, self.grid
        return image.unflatten(2, (columns, w)).unflatten(1, (rows, h)).transpose(2, 3).flatten(3, 4)

    def uncut(self, windows: Tensor) -> Tensor:
        """The inverse of `cut`."""
        return windows.unflatten(3, self.grid).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def reduced(self, clusters: Grid | None) -> 'Windows':
        cell = cast(Grid, clusters)
        extent = pair(count * side for count, side in zip(self.counts, cell))
        return Windows(extent, cell, self.unreduced or self)

    def per_token(self, values: Tensor) -> Tensor:
        return self.join(None, values[..., None])[..., 0]

    def locate(self, labels: Tensor, after: 'Layout') -> Tensor:
        positions = torch.arange(after.extent[0] * after.extent[1], device=labels.device)[None, :, None]
        (_, windows) = after.split(positions)
        found = windows[..., 0].repeat(len(labels) // len(windows), 1).gather(1, labels)
        return self.join(None, found[..., None])[..., 0]


Layout = WholeGrid | Windows
