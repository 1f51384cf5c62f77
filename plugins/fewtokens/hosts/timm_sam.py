"""timm's VisionTransformerSAM: reduced within windows, in which most blocks attend; the others see them all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.tables import kept
from .attention import AttentionContext, Context, biased_attention, key_mask
from .base import Handle, class_names, register_host
from .layout import Grid, Layout, WholeGrid, Windows
from .members import Members
from .replaced import ReplacedCall
from .spread import Sublayers
from .timm_eva import mean_positions
from .timm_vit import TimmViT, mlp_sublayers


@register_host
class TimmSAM(TimmViT):
    family = 'timm VisionTransformerSAM'
    defaults = dict(iters=5, k=20, temperature=100.0)
    relative_positions = True

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TimmSAM']:
        if 'timm.models.vision_transformer_sam.VisionTransformerSAM' not in class_names(module):
            return None
        embed, blocks = module.patch_embed, list(module.blocks)
        window = max((block.window_size for block in blocks), default=0)
        return cls(
            path=path,
            backbone=module,
            entry=embed,
            blocks=blocks,
            taps=None,
            nominal_grid=(window, window) if window else tuple(embed.grid_size),
            image_size=tuple(embed.img_size) if embed.strict_img_size else None,
        )

    @property
    def windowed(self) -> bool:
        """Whether any block attends within windows."""
        return any(block.window_size for block in self.blocks)

    @property
    def grid_is(self) -> str:
        return 'tokens in an attention window' if self.windowed else super().grid_is

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return tuple(map(int, output.shape[1:3]))

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

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        return mlp_sublayers(block) if 'timm.models.vision_transformer_sam.Block' in class_names(block) else None

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        if not block.window_size:
            return [ReplacedCall(block.attn, ReducedGlobalAttention(context))]
        return [ReplacedCall(block.attn, ReducedWindowAttention(context, (block.window_size,) * 2))]


@dataclass
class ReducedWindowAttention:
    """Attention of a block that has cut reduced tokens into windows of the host's size: within their own instead."""

    context: Context
    window: Grid
    """(h, w) of the host's windows."""

    def __call__(self, module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
        context = self.context()
        if context is None:
            return previous(x)
        layout, bias = context.layout, context.key_bias(x)
        cut = Windows(layout.extent, self.window)
        _, tokens = layout.split(cut.join(None, x.flatten(1, 2)))
        real = share_in_image(context)
        if real is not None:
            # The host fills windows up with zeros anew in each block, after its norm.
            tokens = tokens * (real > 0).to(tokens.dtype)
        keys = None if bias is None else layout.split(bias[..., None])[1][..., 0]
        rotary = None
        if module.rope is not None:
            rotary = mean_positions(module.rope.get_embed(), context.members)
        tables = (module.rel_pos_h, module.rel_pos_w) if module.use_rel_pos else None
        out = attend(module, tokens, layout.grid, tables, rotary, keys)
        return cut.split(layout.join(None, out))[1].unflatten(1, self.window)


@dataclass
class ReducedGlobalAttention:
    """Attention over all reduced tokens of an image, which stand on the grid of all windows' clusters."""

    context: Context

    def __call__(self, module: nn.Module, previous: Callable, x: Tensor) -> Tensor:
        context = self.context()
        if context is None:
            return previous(x)
        layout, keys, real = context.layout, context.key_bias(x), share_in_image(context)
        if real is not None:
            # Windows reach beyond the image, where the host's attention sees nothing.
            real = layout.join(None, real)[..., 0].to(x.dtype)
            inside = torch.where(real > 0, real.new_zeros(()), -torch.inf)
            keys = inside if keys is None else keys + real.log()
        tables = stretched_tables(module, layout) if module.use_rel_pos else None
        rotary = None if module.rope is None else _rotary_in_image(module.rope.get_embed(), context)
        out = attend(module, x.flatten(1, 2), layout.extent, tables, rotary, keys)
        return out.unflatten(1, layout.extent)


def attend(
    module: nn.Module,
    x: Tensor,
    grid: Grid,
    tables: tuple[Tensor, Tensor] | None,
    rotary: Tensor | None,
    key_bias: Tensor | None,
) -> Tensor:
    """Attention of tokens on a grid.

    Args:
        module: for its weights.
        x: [B, H*W, C].
        tables: of relative positions up and down [L, D], and across; resized to the grid.
        rotary: positions [B, 1, H*W, 2D].
        key_bias: added to the logits of each token as a key, [B, H*W].
    """
    from timm.layers import apply_rot_embed_cat
    from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias

    query, key, value = module.qkv(x).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key = module.q_norm(query), module.k_norm(key)
    bias = None if key_bias is None else key_mask(key_bias)
    if tables is not None:
        positions = get_decomposed_rel_pos_bias(query.flatten(0, 1), *tables, grid, grid)
        positions = positions.unflatten(0, query.shape[:2])
        bias = positions if bias is None else positions + bias
    if rotary is not None:
        query, key = (apply_rot_embed_cat(each, rotary).type_as(value) for each in (query, key))
    out = biased_attention(query, key, value, bias, module.attn_drop.p if module.training else 0.0, module.scale)
    return module.proj_drop(module.proj(out.transpose(1, 2).flatten(2)))


def share_in_image(context: AttentionContext) -> Tensor | None:
    """What part of those that a token stands for is in the image, [B * windows, h*w, 1]; None where all of them are.

    The others are what the last windows were filled up with.
    """
    whole = context.layout.unreduced if isinstance(context.layout, Windows) else None
    if whole is None or all(side % cell == 0 for side, cell in zip(whole.extent, whole.grid)):
        return None
    return context.members.once(
        _means_in_windows, _inside(whole.extent, whole.grid, device=context.members.labels.device)
    )


def _means_in_windows(values: Tensor, members: Members) -> Tensor:
    """Values of the tokens of an image, [windows, H*W, C], as those of the reduced tokens of all images."""
    return members.mean(values.repeat(len(members.labels) // len(values), 1, 1))


@kept
def _inside(extent: Grid, window: Grid) -> Tensor:
    """[windows, h*w, 1]: 1 for a token of the image, 0 for what a window is filled up with."""
    return Windows(extent, window).split(torch.ones(1, extent[0] * extent[1], 1))[1]


def stretched_tables(module: nn.Module, layout: Layout) -> tuple[Tensor, Tensor]:
    """The tables of relative positions for an image of whole windows; beyond its sides positions end."""
    whole = layout.unreduced if isinstance(layout, Windows) else None
    if whole is None:
        return module.rel_pos_h, module.rel_pos_w
    padded = (count * cell for count, cell in zip(whole.counts, whole.grid))
    return tuple(map(_stretched, (module.rel_pos_h, module.rel_pos_w), whole.extent, padded))


def _stretched(table: Tensor, side: int, padded: int) -> Tensor:
    if side == padded:
        return table
    table = table.T[None]
    if table.shape[2] != 2 * side - 1:
        table = F.interpolate(table, 2 * side - 1, mode='linear')
    return F.pad(table, (padded - side,) * 2, mode='replicate')[0].T


def _rotary_in_image(rotary: Tensor, context: AttentionContext) -> Tensor:
    """Rotary positions [H*W, 2D] as those of an image's reduced tokens: means of their members' in the image."""
    layout, whole = context.layout, getattr(context.layout, 'unreduced', None)
    if whole is None:
        return mean_positions(rotary, context.members)
    means, real = _means_in_windows(whole.split(rotary[None])[1], context.members), share_in_image(context)
    if real is not None:
        means = means / real.clamp_min(torch.finfo(real.dtype).tiny)
    return layout.join(None, means)[:, None]
