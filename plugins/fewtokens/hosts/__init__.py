"""Where the blocks of a backbone are and how its tokens lie: one file a family."""

from torch import nn

from . import mmseg_beit, mmseg_vit, swin
from .attention import AttentionContext, ReplacedCall
from .base import Head, Host
from .layout import Layout

FAMILIES = (mmseg_vit.MMSegViT.family, mmseg_beit.MMSegBEiT.family, swin.Swin.family)
_FINDERS = (mmseg_vit.find, mmseg_beit.find, swin.find)

__all__ = ['FAMILIES', 'AttentionContext', 'Head', 'Host', 'Layout', 'ReplacedCall', 'find_hosts']


def find_hosts(model: nn.Module) -> list[Host]:
    """Every known backbone in the model, in the order of its modules."""
    hosts = []
    modules = dict(model.named_modules())
    for path, module in modules.items():
        parent = modules.get(path.rpartition('.')[0]) if path else None
        found = (find(path, module, parent) for find in _FINDERS)
        hosts += [host for host in found if host is not None][:1]
    return hosts
