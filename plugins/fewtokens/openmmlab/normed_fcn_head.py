"""A light head on features of several blocks."""

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class NormedFCNHead(FCNHead):
    """mmseg's FCNHead with a batch norm before it.

    A transformer's early blocks put out far smaller values than its late ones: side by side they would hardly count.
    With `num_convs=0` this is the linear classifier by which DINOv2 was judged.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.input_norm = build_norm_layer(self.norm_cfg, self.in_channels)[1]

    def _transform_inputs(self, inputs: list[Tensor]) -> Tensor:
        return self.input_norm(super()._transform_inputs(inputs))
