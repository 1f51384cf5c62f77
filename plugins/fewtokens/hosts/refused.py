"""Backbones that look like hosts and are none, each with the reason."""

from torch import nn
from torch.fx import GraphModule
from torch.jit import ScriptModule

from .base import class_names

_MASK_UNITS = (
    'its tokens stand in the order of its mask units, by which they are pooled between stages, and not on a grid; most '
    'of its blocks work on 196 tokens of an image of 224 x 224'
)
REFUSED = {
    'timm.models.hiera.Hiera': _MASK_UNITS,
    'transformers.models.hiera.modeling_hiera.HieraModel': _MASK_UNITS,
    'timm.models.swin_transformer_v2_cr.SwinTransformerV2Cr': (
        'some of its blocks norm the sum of all branches, after which what a token changed by is no longer known: '
        "timm's SwinTransformerV2 (swinv2_…) adds up, and is one"
    ),
    'transformers.models.vit_mae.modeling_vit_mae.ViTMAEModel': (
        "it shuffles its tokens, whose places say nothing of where they are: timm's VisionTransformer takes its weights"
    ),
}


COMPILED_AWAY = (
    'its blocks were compiled away, by torch.jit, torch.fx or torch.export: attach to the model that it was made '
    'of, and make it anew of that'
)


def why_refused(model: nn.Module) -> str | None:
    """The reason why a model has no known backbone, None where none is known."""
    names = (name for module in model.modules() for name in class_names(module) & REFUSED.keys())
    reason = next((REFUSED[name] for name in names), None)
    if reason is None and any(isinstance(module, (ScriptModule, GraphModule)) for module in model.modules()):
        return COMPILED_AWAY
    return reason
