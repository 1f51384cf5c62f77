"""Checkpoints as OpenMMLab writes and reads them: what they say of classes, and MMEngine's own reading made safe."""

import os
from typing import Any

from mmengine.runner import CheckpointLoader

from ..checkpoints.reading import load_checkpoint, state_dict_of


def dataset_meta_of(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The classes, and the palette if it is there, of what a checkpoint was trained on; None where it doesn't tell.

    OpenMMLab's versions 0.x had them elsewhere, and in capitals.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    found = meta.get('dataset_meta') or {key: meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    if not isinstance(found, dict):
        return None
    found = {str(key).lower(): value for key, value in found.items() if value is not None}
    return found if isinstance(found.get('classes'), (list, tuple)) else None


def make_mmengine_safe() -> None:
    """MMEngine reads local files as `load_checkpoint` does: its own way runs what a file carries if nothing else works.

    This is for `load_from`, `resume` and `init_cfg=dict(type='Pretrained')`. Files from the net are read as before.
    """
    CheckpointLoader.register_scheme('', load_from_local, force=True)


def load_from_local(filename: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """MMEngine's function of this name, which it logs, for `make_mmengine_safe`."""
    path = os.path.expanduser(filename)
    checkpoint = load_checkpoint(path, map_location)
    return dict(checkpoint, state_dict=state_dict_of(checkpoint, path))
