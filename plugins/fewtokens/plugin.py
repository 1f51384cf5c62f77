"""What can be put on a model and taken off again: reducers of an image's tokens, clusterings of a video's."""

from typing import Any, Protocol

from torch import nn

from .attach import attach
from .attachment import Attachment
from .reducers import Reducer


class Attaches(Protocol):
    """A plugin that knows its own way onto a model; its text is its name."""

    after: Any
    """The block, or blocks, after which it begins."""

    def attach_to(self, model: nn.Module) -> Attachment:
        """Puts it on a model until the attachment is removed; a ValueError says why it doesn't fit."""


Plugin = Reducer | Attaches


def attach_plugin(model: nn.Module, plugin: Plugin) -> Attachment:
    """Puts a plugin of either kind on a model; raises what `attach` or its own `attach_to` does."""
    return plugin.attach_to(model) if hasattr(plugin, 'attach_to') else attach(model, plugin)
