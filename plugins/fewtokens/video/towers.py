"""CLIP's visual towers: where their blocks are and how their tokens lie."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType

from torch import nn

_FITTING = "open_clip's VisionTransformer fits, and timm's VisionTransformer and Eva without rotary positions"


@dataclass(frozen=True)
class Tower:
    """A visual tower, and where its blocks are.

    Attributes:
        visual: the tower.
        part: the tower's attribute with the module that runs the blocks.
        name: that module's attribute with the blocks.
        batch_first: whether tokens come as [B, N, C], or as [N, B, C].
        num_prefix_tokens: class token and registers.
        patch_size: height and width in pixels.
        image_size: the only height and width that the tower takes; None if it takes any.
        patch_dropout: the module that leaves out patches in training, or None.
        mask_heads: heads of attention, where blocks want a mask for each, [B * heads, N, N]; None where they take
            whatever broadcasts to [B, heads, N, N].
    """

    visual: nn.Module
    part: str
    name: str
    batch_first: bool
    num_prefix_tokens: int
    patch_size: tuple[int, int]
    image_size: tuple[int, int] | None
    patch_dropout: nn.Module | None
    mask_heads: int | None

    @property
    def owner(self) -> nn.Module:
        """The module that runs the blocks."""
        return getattr(self.visual, self.part)

    @property
    def blocks(self) -> nn.ModuleList | nn.Sequential:
        return getattr(self.owner, self.name)

    @property
    def drops_patches(self) -> bool:
        dropout = self.patch_dropout
        return getattr(dropout, 'prob', 0) > 0 and dropout.training

    def with_steps(self, steps: Mapping[int, nn.Module]) -> nn.Module:
        """A tower that runs a step before the block of its index, and later blocks as it says.

        It is another module, with the same weights, hooks and blocks: the tower itself, in which other threads and
        encoders may be at work, is not touched. The steps are entries of its list, not hooks on the blocks: gradient
        checkpointing keeps what it has run and runs it again in backward, when other passes have begun and ended.
        """
        if not steps:
            return self.visual
        blocks, chain, step = self.blocks, [], None
        for index, block in enumerate(blocks):
            if index in steps:
                step = steps[index]
                chain.append(step)
            chain.append(block if step is None else step.around(block))
        chained = nn.Sequential(*chain) if isinstance(blocks, nn.Sequential) else type(blocks)(chain)
        return _with_part(self.visual, self.part, _with_part(self.owner, self.name, chained))


def _with_part(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """A module that shares everything with another but one of its parts."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, name: part}
    for key, value in vars(module).items():
        # Such as a forward of the user's own.
        if isinstance(value, MethodType) and value.__self__ is module:
            setattr(twin, key, MethodType(value.__func__, twin))
    return twin


def find_tower(visual: nn.Module) -> Tower:
    """The blocks of an open_clip visual tower.

    Raises:
        ValueError: the blocks can't be found or don't work on any number of tokens; says why, and what fits.
    """
    names = [cls.__name__ for cls in type(visual).__mro__]
    if 'TimmModel' in names:
        return _find_in_trunk(visual)
    if 'VisionTransformer' in names and hasattr(visual, 'transformer'):
        # open_clip's attribute is there without dropout too, as an Identity.
        return Tower(
            visual=visual,
            part='transformer',
            name='resblocks',
            batch_first=visual.transformer.batch_first,
            num_prefix_tokens=1,
            patch_size=tuple(visual.patch_size),
            image_size=tuple(visual.image_size),
            patch_dropout=visual.patch_dropout,
            mask_heads=visual.transformer.resblocks[0].attn.num_heads,
        )
    reason = 'it is a convolutional network' if 'ModifiedResNet' in names else 'it has no known blocks'
    raise ValueError(f'the visual tower {names[0]} cannot be used: {reason}. {_FITTING}')


def _find_in_trunk(visual: nn.Module) -> Tower:
    trunk = visual.trunk
    name = type(trunk).__name__
    reason = None
    if name == 'NaFlexVit':
        reason = 'its images have sequences and masks of their own length'
    elif name not in ('VisionTransformer', 'VisionTransformerDistilled', 'Eva'):
        reason = 'it has no known blocks'
    elif getattr(trunk, 'rope', None) is not None:
        reason = 'its rotary positions need all patches in place'
    if reason:
        raise ValueError(f"the visual tower timm's {name} cannot be used: {reason}. {_FITTING}")
    embed = trunk.patch_embed
    return Tower(
        visual=visual,
        part='trunk',
        name='blocks',
        batch_first=True,
        num_prefix_tokens=trunk.num_prefix_tokens,
        patch_size=tuple(embed.patch_size),
        image_size=tuple(embed.img_size) if embed.strict_img_size else None,
        patch_dropout=getattr(trunk, 'patch_drop', None),
        mask_heads=None,
    )
