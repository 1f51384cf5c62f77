"""Reads checkpoint files: what a file is gets seen first, and nothing of it is run."""

import os
import re
import zipfile
from collections import OrderedDict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What no checkpoint begins with.
_OTHER_FILES = {
    b'version https://git-lfs': "git-lfs's pointer to the file: `git lfs pull` gets it",
    b'\x93NUMPY': 'a single NumPy array',
    b'\x89HDF': 'an HDF5 file',
    b'\x1f\x8b': 'a gzip archive, to be unpacked first',
    b'BZh': 'a bzip2 archive, to be unpacked first',
    b'\xfd7zXZ': 'an xz archive, to be unpacked first',
    b'7z\xbc\xaf': 'a 7z archive, to be unpacked first',
    b'Rar!': 'a rar archive, to be unpacked first',
}
_TORCH_MAGIC = torch.serialization.MAGIC_NUMBER.to_bytes(10, 'little')
_PLACES = ('state_dict', 'model')
_WEIGHTS = "a dict of tensors by name is needed, alone or under 'state_dict' or 'model'"


def file_kind(path: str | os.PathLike) -> str:
    """What wrote a file of weights, by its content: 'torch', 'safetensors', 'npz' (NumPy) or 'pickle'.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is nothing that weights are kept in; the message says what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {str(path)!r}' + (', but a folder' if path.is_dir() else ''))
    with open(path, 'rb') as file:
        head = file.read(512)
    try:
        return _kind_of(head, path)
    except ValueError as error:
        raise ValueError(f'{str(path)!r} is no checkpoint: it is {error}') from error


def _kind_of(head: bytes, path: Path) -> str:
    """See `file_kind`; a ValueError says what else it is."""
    if not head:
        raise ValueError('empty, as a download or a copy leaves it that failed')
    for beginning, what in _OTHER_FILES.items():
        if head.startswith(beginning):
            raise ValueError(what)
    if head[257:262] == b'ustar':
        raise ValueError("a tar archive, PyTorch's format before 0.1.10 perhaps, which cannot be read safely")
    if head.startswith(b'PK\3\4'):
        return _zip_kind(path)
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < path.stat().st_size:
        return 'safetensors'
    if head.startswith(b'\x80'):
        # In its format before zip files, torch.save begins with a number.
        return 'torch' if _TORCH_MAGIC in head[:32] else 'pickle'
    text = head.removeprefix(b'\xef\xbb\xbf').lstrip()
    if text.startswith(b'<'):
        raise ValueError('a web page (HTML or XML): the download failed')
    if path.suffix == '.pkl':
        return 'pickle'  # the oldest pickles begin like text
    if text.isascii() and not re.search(rb'[^\s\x20-\x7e]', text):
        raise ValueError(f'text that begins with {text[:40].decode()!r}')
    return 'torch'


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # noqa: BLE001  what a damaged archive raises can be anything
        raise ValueError('damaged or cut off: a zip archive without its end') from error
    if any(name.endswith('.npy') for name in names):
        return 'npz'
    files = {name.rpartition('/')[2] for name in names}
    if 'constants.pkl' in files:
        raise ValueError('a TorchScript model, which is code as well: its state_dict alone is needed')
    if 'data.pkl' not in files:
        raise ValueError(f'a zip archive of other files ({", ".join(names[:3]) or "none"})')
    return 'torch'


@cache
def _allowed() -> list[Any]:
    """What a checkpoint may carry beside tensors, for `torch.serialization.safe_globals`."""
    # An empty array is written with `bytes`.
    return [bytes, slice, *_numpy_parts(), *_mmengine_parts(), (_method, 'builtins.getattr')]


def _numpy_parts() -> list[Any]:
    """NumPy's scalars and arrays, under the names of versions 1 and 2, which MMEngine writes into a checkpoint."""
    if find_spec('numpy') is None:
        return []
    import numpy as np
    from numpy._core import multiarray

    functions = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ]
    return [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in np.typecodes['All'] if code != 'O'}, *functions]


@cache
def _mmengine_parts() -> set[type]:
    """MMEngine's log history and learning-rate schedules, which a training goes on from."""
    if find_spec('mmengine') is None:
        return set()
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler import lr_scheduler, momentum_scheduler, param_scheduler

    modules = (lr_scheduler, momentum_scheduler, param_scheduler)
    found = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    return {cls for cls in found if cls.__module__.startswith('mmengine.')} | {HistoryBuffer}


def _method(owner: Any, name: Any) -> Any:
    """Stands for `getattr`, by which a pickle names the methods of MMEngine's classes: it finds nothing else."""
    known = owner in _mmengine_parts() and not str(name).startswith('__')
    if known and any(name in vars(cls) for cls in owner.__mro__):
        return getattr(owner, name)
    raise ValueError(f'it carries an attribute {name!r} of {owner!r}')


def load_checkpoint(path: str | os.PathLike, device: Any = 'cpu') -> dict[str, Any]:
    """Reads a checkpoint, in any format of PyTorch's or safetensors', without running code that it might carry.

    Args:
        device: where its tensors go, as `torch.load`'s `map_location`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is a safetensors file, and safetensors is not installed.
        ValueError: it is no checkpoint, or carries objects that can't be loaded safely.
    """
    kind = file_kind(path)
    if kind in ('npz', 'pickle'):
        what = 'a pickle that torch.save did not write' if kind == 'pickle' else "NumPy's archive of arrays"
        raise ValueError(f'{str(path)!r} is {what}: fewtokens convert makes a checkpoint of published ones')
    try:
        if kind == 'safetensors':
            return _load_safetensors(path, device)
        with torch.serialization.safe_globals(_allowed()):
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001  what a damaged file raises can be anything
        raise ValueError(f'checkpoint {str(path)!r} cannot be loaded safely: {reason_of(error)}') from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'checkpoint {str(path)!r} holds no weights: it is {_what(checkpoint)}; {_WEIGHTS}')
    return checkpoint


def _load_safetensors(path: str | os.PathLike, device: Any) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f'{str(path)!r} needs safetensors to be read: pip install safetensors') from error
    return load_file(path, device=str(device or 'cpu'))


def reason_of(error: Exception) -> str:
    """What `torch.load` found wrong with a file, without its advice to load it unsafely."""
    text = str(error)
    if refused := re.search(r'GLOBAL (\S+) (?:was not|whose)', text):
        name = refused[1] if '.' in refused[1] else f'builtins.{refused[1]}'
        return f'it carries {name}, which is neither tensor nor number: save its state_dict alone where it was made'
    if 'Unsupported operand' in text:
        return "it is damaged, or was written in another pickle_protocol than torch.save's own, 2"
    told = text.rpartition('WeightsUnpickler error:')[2].strip().partition('\n')[0]
    if not told or 'weights_only' in told:
        told = type(error).__name__
    return f'it is damaged or cut off, or carries other objects than tensors and numbers ({told})'


def _what(value: Any) -> str:
    return 'None' if value is None else f'of type {type(value).__name__}'


def state_dict_of(checkpoint: dict[str, Any], source: str | os.PathLike) -> dict[str, Tensor]:
    """The weights in a checkpoint of `source`, without the prefix that a distributed wrapper leaves.

    Raises:
        ValueError: there are none, or not only tensors.
    """
    state: Any = checkpoint
    problem = None
    for place in _PLACES:
        if not problem and place in state and not isinstance(state[place], Tensor):
            state = state[place]
            problem = None if isinstance(state, dict) else f'its {place} is {_what(state)}'
    if not problem:
        problem = _problem(state)
    if problem:
        raise ValueError(f'checkpoint {str(source)!r} holds no weights: {problem}; {_WEIGHTS}')
    weights = OrderedDict((name.removeprefix('module.'), value) for name, value in state.items())
    versions = getattr(state, '_metadata', None)  # of the modules, which tell older weights by them
    if isinstance(versions, dict):
        vars(weights)['_metadata'] = {
            f'{name}.'.removeprefix('module.').removesuffix('.'): value for name, value in versions.items()
        }
    return weights


def _problem(state: dict[Any, Any]) -> str | None:
    others = [
        f'{name!r} is {_what(value)}'
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if others:
        return f'{len(others)} of {len(state)} entries are no named tensors ({", ".join(others[:4])})'
    return None if state else 'it is empty'


def check_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raises a ValueError that names what differs where the weights are not this model's."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(('num_batches_tracked',))]
    unknown = [name for name in state if name not in own]
    shapes = [
        f'{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}'
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    lines = [
        f'{len(names)} {what} ({", ".join(names[:3])}{", …" if len(names) > 3 else ""})'
        for what, names in (('missing', missing), ('unknown', unknown), ('of another shape', shapes))
        if names
    ]
    if lines:
        raise ValueError(f'{source!r} is a checkpoint of another architecture: of its weights, {"; ".join(lines)}')
