"""A pretrained backbone that stays as it is while a head is trained on it."""

from mmseg.models.backbones import TIMMBackbone
from mmseg.registry import MODELS
from torch import nn


@MODELS.register_module()
class FrozenTIMMBackbone(TIMMBackbone):
    """mmseg's TIMMBackbone with weights that are not trained, in evaluation mode throughout.

    Its weights have the names of a TIMMBackbone's: training may go on with that one.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)
