"""CLIP's visual towers: where their blocks are and how their tokens lie."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

_FITTING = "open_clip's VisionTransformer fits, and timm's VisionTransformer and Eva without rotary positions"


@dataclass(frozen=True)
class Tower:
    """Where a visual tower's blocks are.

    Attributes:
        owner: the module that runs the blocks.
        name: the attribute of the owner that holds them.
        batch_first: whether tokens come as [B, N, C], or as [N, B, C].
        num_prefix_tokens: class token and registers.
        patch_size: height and width in pixels.
        image_size: the only height and width that the tower takes; None if it takes any.
        patch_dropout: the module that leaves out patches in training, or None.
        mask_heads: heads of attention, where blocks want a mask for each, [B * heads, N, N]; None where they take
            whatever broadcasts to [B, heads, N, N].
    """

    owner: nn.Module
    name: str
    batch_first: bool
    num_prefix_tokens: int
    patch_size: tuple[int, int]
    image_size: tuple[int, int] | None
    patch_dropout: nn.Module | None
    mask_heads: int | None

    @property
    def blocks(self) -> nn.ModuleList | nn.Sequential:
        return getattr(self.owner, self.name)

    @property
    def drops_patches(self) -> bool:
        dropout = self.patch_dropout
        return getattr(dropout, 'prob', 0) > 0 and dropout.training

    @contextmanager
    def inserted(self, steps: Mapping[int, nn.Module]) -> Iterator[None]:
        """Runs a step before the block of its index, and later blocks as it says, for the length of a `with`.

        The steps are entries of the owner's list, not hooks on its blocks: gradient checkpointing keeps what it has run
        and runs it again in backward, when other passes have begun and ended.
        """
        blocks, chain, step = self.blocks, [], None
        for index, block in enumerate(blocks):
            if index in steps:
                step = steps[index]
                chain.append(step)
            chain.append(block if step is None else step.around(block))
        setattr(
            self.owner, self.name, nn.Sequential(*chain) if isinstance(blocks, nn.Sequential) else type(blocks)(chain)
        )
        try:
            yield
        finally:
            setattr(self.owner, self.name, blocks)


def find_tower(visual: nn.Module) -> Tower:
    """The blocks of an open_clip visual tower.

    Raises:
        ValueError: the blocks can't be found or don't work on any number of tokens; says why, and what fits.
    """
    names = [cls.__name__ for cls in type(visual).__mro__]
    if 'TimmModel' in names:
        return _find_in_trunk(visual.trunk)
    if 'VisionTransformer' in names and hasattr(visual, 'transformer'):
        # open_clip's attribute is there without dropout too, as an Identity.
        return Tower(
            owner=visual.transformer,
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


def _find_in_trunk(trunk: nn.Module) -> Tower:
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
        owner=trunk,
        name='blocks',
        batch_first=True,
        num_prefix_tokens=trunk.num_prefix_tokens,
        patch_size=tuple(embed.patch_size),
        image_size=tuple(embed.img_size) if embed.strict_img_size else None,
        patch_dropout=getattr(trunk, 'patch_drop', None),
        mask_heads=None,
    )
