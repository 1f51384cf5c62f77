"""SAM's blocks, timm's and Hugging Face's: most attend within windows, the others over the whole image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.grid import pair
from ..ops.tables import kept
from .attention import AttentionContext, Context
from .base import Handle, Host
from .decomposed_positions import attend
from .layout import Grid, Layout, WholeGrid, Windows
from .members import Members
from .replaced import ReplacedCall


class SAMBlocks(Host):
    """What hosts have in common whose blocks attend within windows or over the whole image, on maps [B, H, W, C]."""

    relative_positions: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = dict(iters=5, k=20, temperature=100.0)
    attention: ClassVar[type['ReducedAttention']]
    """What stands in for the call of a block's attention."""

    @property
    def windowed(self) -> bool:
        """Whether any block attends within windows."""
        return any(window_of(block) is not None for block in self.blocks)

    @property
    def grid_is(self) -> str:
        return 'tokens in an attention window' if self.windowed else super().grid_is

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[1:3]))

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        return Windows(grid, self.nominal_grid) if self.windowed else WholeGrid(0, grid)

    def tokens(self, value: Any) -> Tensor:
        return value.flatten(1, 2)

    def with_tokens(self, value: Any, tokens: Tensor, layout: Layout) -> Any:
        return tokens.unflatten(1, layout.extent)

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        return forward(value, *args, **kwargs)

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        return [ReplacedCall(block.attn, self.attention(context, window_of(block)))]


def window_of(block: nn.Module) -> Grid | None:
    """(h, w) of a block's windows, None where it sees the whole image."""
    window = block.window_size
    window = (window, window) if isinstance(window, int) else tuple(window)
    return window if any(window) else None


def nominal_window(blocks: Sequence[nn.Module]) -> Grid | None:
    """(h, w) of the windows, None where all blocks see the whole image."""
    return max((window for window in map(window_of, blocks) if window), default=None)


@dataclass
class ReducedAttention:
    """Attention of a block over reduced tokens. A library's own form says where its parts stand, and is called."""

    context: Context
    window: Grid | None
    """(h, w) of the host's windows, into which the block has cut reduced tokens; None where it sees all of them."""

    def __call__(self, module: nn.Module, previous: Callable, *args: Any, **kwargs: Any) -> Any:
        """The block's call of its attention."""
        raise NotImplementedError

    def heads(self, module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, heads, N, D] of tokens [B, N, C]."""
        raise NotImplementedError

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        """What the module makes of attended tokens [B, N, C]."""
        raise NotImplementedError

    def dropout(self, module: nn.Module) -> float:
        """Of the weights, in training."""
        return 0.0

    def turn(self, module: nn.Module, context: AttentionContext, heads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Queries, keys and values with rotary positions, where there are some."""
        return heads

    def reduced(self, module: nn.Module, x: Tensor, context: AttentionContext) -> Tensor:
        """The module's output for reduced tokens [B, H, W, C], cut into the host's windows where it has some."""
        if self.window is None:
            return self._in_image(module, x, context)
        return self._in_windows(module, x, context, self.window)

    def _in_windows(self, module: nn.Module, x: Tensor, context: AttentionContext, window: Grid) -> Tensor:
        """Within windows of the reduced tokens, not in those that the block cut."""
        layout, bias = context.windows, context.key_bias(x)
        cut = Windows(layout.extent, window)
        tokens = _recut(x.flatten(1, 2), cut, layout)
        real = share_in_image(context)
        if real is not None:
            # The host fills windows up with zeros anew in each block, after its norm.
            tokens = tokens * (real > 0).to(tokens.dtype)
        keys = None if bias is None else layout.split(bias[..., None])[1][..., 0]
        out = self._attend(module, tokens, layout.grid, _tables(module), keys, context)
        return _recut(out, layout, cut).unflatten(1, window)

    def _in_image(self, module: nn.Module, x: Tensor, context: AttentionContext) -> Tensor:
        """Over all reduced tokens of an image, which stand on the grid of all windows' clusters."""
        layout, keys, real = context.layout, context.key_bias(x), share_in_image(context)
        if real is not None:
            # Windows reach beyond the image, where the host's attention sees nothing.
            real = layout.join(None, real)[..., 0].to(x.dtype)
            inside = torch.where(real > 0, real.new_zeros(()), -torch.inf)
            keys = inside if keys is None else keys + real.log()
        tables = _tables(module)
        tables = None if tables is None else stretched_tables(tables, layout)
        out = self._attend(module, x.flatten(1, 2), layout.extent, tables, keys, context)
        return out.unflatten(1, layout.extent)

    def _attend(
        self,
        module: nn.Module,
        x: Tensor,
        grid: Grid,
        tables: tuple[Tensor, Tensor] | None,
        keys: Tensor | None,
        context: AttentionContext,
    ) -> Tensor:
        query, key, value = self.turn(module, context, self.heads(module, x))
        dropout = self.dropout(module) if module.training else 0.0
        attended = attend(query, key, value, grid, tables, keys, dropout, module.scale)
        return self.output(module, attended.transpose(1, 2).flatten(2))


def _recut(windows: Tensor, cut: Windows, other: Windows) -> Tensor:
    """An image's tokens in windows [B * windows, h*w, C] as they are in others; some token where there is none."""
    images = windows.unflatten(0, (-1, cut.counts[0] * cut.counts[1])).flatten(1, 2)
    order = _moves(cut.extent, cut.grid, other.grid, device=windows.device)
    return images.index_select(1, order).unflatten(1, (-1, other.grid[0] * other.grid[1])).flatten(0, 1)


@kept
def _moves(extent: Grid, cut_to: Grid, other_to: Grid) -> Tensor:
    """[tokens in all other windows]: where each of them stands in windows of the one size."""
    cut, other = Windows(extent, cut_to), Windows(extent, other_to)
    places = torch.arange(cut.counts[0] * cut.counts[1] * cut.grid[0] * cut.grid[1])
    of_image = cut.join(None, places.view(-1, cut.grid[0] * cut.grid[1], 1))
    return other.split(of_image)[1].flatten()


def share_in_image(context: AttentionContext) -> Tensor | None:
    """What part of those that a token stands for is in the image, [B * windows, h*w, 1]; None where all of them are.

    The others are what the last windows were filled up with.
    """
    whole = context.layout.unreduced if isinstance(context.layout, Windows) else None
    if whole is None or all(side % cell == 0 for side, cell in zip(whole.extent, whole.grid)):
        return None
    return context.groups.once(means_in_windows, _inside(whole.extent, whole.grid, device=context.groups.labels.device))


def means_in_windows(values: Tensor, members: Members) -> Tensor:
    """Values of the tokens of an image, [windows, H*W, C], as those of the reduced tokens of all images."""
    return members.mean(values.repeat(len(members.labels) // len(values), 1, 1))


@kept
def _inside(extent: Grid, window: Grid) -> Tensor:
    """[windows, h*w, 1]: 1 for a token of the image, 0 for what a window is filled up with."""
    return Windows(extent, window).split(torch.ones(1, extent[0] * extent[1], 1))[1]


def _tables(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Of relative positions up and down [L, D], and across, where there are some."""
    return (module.rel_pos_h, module.rel_pos_w) if getattr(module, 'use_rel_pos', False) else None


def stretched_tables(tables: tuple[Tensor, Tensor], layout: Layout) -> tuple[Tensor, ...]:
    """The tables of relative positions for an image of whole windows; beyond its sides positions end."""
    whole = layout.unreduced if isinstance(layout, Windows) else None
    if whole is None:
        return tables
    padded = (count * cell for count, cell in zip(whole.counts, whole.grid))
    return tuple(map(_stretched, tables, whole.extent, padded))


def _stretched(table: Tensor, side: int, padded: int) -> Tensor:
    if side == padded:
        return table
    table = table.T[None]
    if table.shape[2] != 2 * side - 1:
        table = F.interpolate(table, 2 * side - 1, mode='linear')
    return F.pad(table, (padded - side,) * 2, mode='replicate')[0].T
