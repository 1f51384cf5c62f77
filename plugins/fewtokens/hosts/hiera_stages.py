"""SAM 2's blocks, timm's and Hugging Face's: SAM's, in stages whose first blocks pool the tokens of the one before."""

from typing import Any

from torch import nn

from ..ops.grid import pair
from .layout import Grid, Layout, Windows
from .sam_blocks import SAMBlocks


class HieraStages(SAMBlocks):
    """What hosts of stages have in common; `ends` and `windows` are fields of theirs."""

    ends: tuple[int, ...]
    """For each stage, the number of blocks until its end."""
    windows: tuple[Grid, ...]
    """(h, w) of each stage's windows: its blocks that see the whole image have none of their own."""

    def stride(self, block: nn.Module) -> Grid | None:
        """By how much a block pools, None if it doesn't."""
        raise NotImplementedError

    def region_end(self, index: int) -> int:
        if self.stride(self.blocks[index]):
            raise ValueError(
                f'after={index}: block {index} of {type(self.backbone).__name__} pools the tokens of one stage to '
                f'those of the next, and they must be whole: after={index + 1} fits where the stage has more blocks, '
                f'and stages begin at blocks {", ".join(map(str, (0, *self.ends[:-1])))}'
            )
        return self.ends[self._stage(index)]

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        for block in self.blocks[:index]:
            grid = pair(side // stride for side, stride in zip(grid, self.stride(block) or (1, 1)))
        return Windows(grid, self.windows[self._stage(index)])

    def _stage(self, index: int) -> int:
        return next(stage for stage, end in enumerate(self.ends) if index < end)
