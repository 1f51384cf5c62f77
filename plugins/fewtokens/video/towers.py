"""CLIP's visual towers: hosts whose blocks run with other modules between them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..hosts import Host, ReplacedCall, find_host
from .steps import ClusteringStep
from .twins import with_parts

_FITTING = "open_clip's VisionTransformer fits, and timm's VisionTransformer and Eva without rotary positions"
_REASONS = dict(
    ModifiedResNet='it is a convolutional network', NaFlexVit='its images have sequences and masks of their own length'
)


@dataclass(frozen=True)
class Tower:
    """A visual tower, and the host that it is or has."""

    visual: nn.Module
    host: Host

    def with_steps(self, steps: Mapping[int, ClusteringStep]) -> nn.Module:
        """A tower that runs a step before the block of its index, and later blocks as it says.

        It is another module, with the same weights, hooks and blocks: the tower itself, in which other threads and
        encoders may be at work, is not touched. The steps are entries of its list, not hooks on the blocks: gradient
        checkpointing keeps what it has run and runs it again in backward, when other passes have begun and ended.
        """
        if not steps:
            return self.visual
        chain, step = [], None
        for index, block in enumerate(self.host.blocks):
            if index in steps:
                step = steps[index]
                chain.append(step)
            chain.append(block if step is None else step.around(index, index in steps, block))
        path, blocks = self._find_list()
        chained = nn.Sequential(*chain) if isinstance(blocks, nn.Sequential) else type(blocks)(chain)
        entry = copy.copy(self.host.entry)
        ReplacedCall(entry, steps[min(steps)].see_entry)
        return with_parts(self.visual, {path: chained, self._path_of(self.host.entry): entry})

    def _find_list(self) -> tuple[str, nn.ModuleList | nn.Sequential]:
        """The module that the blocks are entries of, and its path."""
        for path, module in self.visual.named_modules():
            if isinstance(module, (nn.ModuleList, nn.Sequential)) and list(module) == list(self.host.blocks):
                return path, module
        raise ValueError(f'the visual tower {type(self.visual).__name__} has no list of its blocks')

    def _path_of(self, part: nn.Module) -> str:
        return next(path for path, module in self.visual.named_modules() if module is part)


def find_tower(visual: nn.Module) -> Tower:
    """A visual tower whose blocks take any number of tokens: it is a host, or one of its parts is.

    Raises:
        ValueError: there is no such host; says why, and what fits.
    """
    candidates = [('', visual, None), *((name, part, visual) for name, part in visual.named_children())]
    host = next((host for candidate in candidates if (host := find_host(*candidate))), None)
    if host is None:
        trunk = getattr(visual, 'trunk', visual)
        names = [cls.__name__ for cls in type(trunk).__mro__]
        reason = next((_REASONS[name] for name in names if name in _REASONS), 'it has no known blocks')
    elif host.relative_positions or host.rotary_positions:
        trunk, reason = host.backbone, 'its rotary or relative positions need all patches in place'
    elif type(host).place_attention is not Host.place_attention:
        trunk, reason = host.backbone, 'its blocks take no mask'
    else:
        return Tower(visual, host)
    of_timm = "timm's " if trunk is getattr(visual, 'trunk', None) else ''
    raise ValueError(f'the visual tower {of_timm}{type(trunk).__name__} cannot be used: {reason}. {_FITTING}')
