"""PyTorch's fused attention for hosts that miss it: the same output, sooner."""

from torch import nn

from .attachment import Attachment, attached, forget_compiled, refuse_data_parallel, refuse_replica
from .hosts import FAMILIES


class FusedAttention(Attachment):
    """Fused attention calls. Made by `use_sdpa`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        refuse_data_parallel(model)
        self.places: list[str] = []
        if any(isinstance(other, FusedAttention) for other in attached(model)):
            raise ValueError(f'{type(model).__name__} has fused attention attached already: remove() it first')
        for path, module in model.named_modules():
            handles = [handle for family in FAMILIES for handle in family.fuse(module)]
            self._handles += handles
            self.places += [path] * bool(handles)
        if self.places:
            # Marks the model: a second attachment finds the first by its bound hooks.
            self._handles.append(model.register_forward_pre_hook(self._mark))
        forget_compiled()

    def _mark(self, module: nn.Module, args: tuple) -> None:
        refuse_replica(module)

    def summary(self) -> str:
        if not self.places:
            return 'fused attention: no attention found that misses it'
        return f'fused attention in {len(self.places)} places, {self.places[0]} to {self.places[-1]}'


def use_sdpa(model: nn.Module) -> 'FusedAttention':
    """Switches a model's attention to PyTorch's fused one where the host computes it step by step.

    Knows mmcv's MultiheadAttention, mmseg's BEiT attention, Swin's in mmdet, mmseg, timm, transformers and torchvision,
    and the plain attention of SAM's blocks in transformers, wherever they stand in the model. Outputs are the same up
    to rounding. A model that has none of them is left as it is, and `summary()` says so.

    Raises:
        ValueError: it is switched on already.
    """
    return FusedAttention(model)
