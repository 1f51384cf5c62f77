"""Brings a published vision transformer or Segmenter under the key names of today's mmseg.

A whole Segmenter becomes a checkpoint for tools/test.py; a backbone alone is for `model.pretrained` in a config, where
mmseg resizes its position table to the config's image size.
"""

import argparse
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewtokens.openmmlab.checkpoint_keys import LAYOUTS, convert_keys


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN', help='a .pth or .npz file')
    parser.add_argument('target', type=Path, metavar='OUT', help='the .pth file to write')
    parser.add_argument('--arch', choices=['auto', *LAYOUTS], default='auto', help='the layout of IN, found by itself')
    args = parser.parse_args(arguments)
    try:
        weights = convert_keys(read_weights(args.source), args.arch)
        write_weights(weights, args.target)
    except (ValueError, OSError) as error:
        sys.exit(f'{args.source}: {error}')
    kind = 'an EncoderDecoder' if any(key.startswith('backbone.') for key in weights) else 'a VisionTransformer alone'
    print(f'{args.target}: {len(weights)} tensors of {kind}')
    if any(key.endswith('patch_embed.projection.bias') for key in weights):
        print('its patch embedding has a bias: set patch_bias=True in the backbone of the config')


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by key. Nothing in the file is executed; a file that would need it is refused."""
    try:
        if path.suffix == '.npz':
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise ValueError('there is no such file') from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
        raise ValueError(f'cannot be read as a checkpoint of tensors alone: {error}') from error
    for name in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError("holds neither a state_dict nor one under 'state_dict' or 'model'")
    return checkpoint


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Writes beside the target and renames: an interruption leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            torch.save({'state_dict': weights}, file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


if __name__ == '__main__':
    main()
