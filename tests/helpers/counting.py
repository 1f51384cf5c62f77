"""Operations of a backbone as fvcore counts them."""

import torch
from torch import nn

import fewtokens
from fewtokens.measure.macs import count_macs


class Counter:
    """A layer norm is five operations an element, beside the products that torch counts."""

    def __init__(self, backbone, images=1, height=1152, width=1152):
        self.backbone, self.image, self.norms = backbone, torch.empty(images, 3, height, width, device='meta'), 0

    def __call__(self, reducer=None, model=None):
        """GMACs without and with norms; attached to the model that the backbone is in."""
        self.norms = 0
        hooks = [m.register_forward_hook(self.norm) for m in self.backbone.modules() if isinstance(m, nn.LayerNorm)]
        if reducer is None:
            macs = count_macs(self.backbone, self.image)
        else:
            with fewtokens.attach(model or self.backbone, reducer):
                macs = count_macs(self.backbone, self.image)
        for hook in hooks:
            hook.remove()
        return macs / 1e9, (macs + self.norms) / 1e9

    def norm(self, module, args, output):
        self.norms += 5 * output.numel()
