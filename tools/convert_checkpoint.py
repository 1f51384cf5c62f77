"""Brings a published vision transformer or Segmenter under the key names of today's mmseg.

A whole Segmenter becomes a checkpoint for tools/test.py; a backbone alone is for `model.pretrained` in a config, where
mmseg resizes its position table to the config's image size.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.measure.files import write_whole
from fewtokens.openmmlab.checkpoint_keys import LAYOUTS, convert_keys
from fewtokens.openmmlab.cli import run
from fewtokens.openmmlab.model import load_checkpoint


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN', help='a .pth or .npz file')
    parser.add_argument('target', type=Path, metavar='OUT', help='the .pth file to write')
    parser.add_argument('--arch', choices=['auto', *LAYOUTS], default='auto', help='the layout of IN, found by itself')
    args = parser.parse_args(arguments)
    weights = convert_keys(read_weights(args.source), args.arch)
    write_whole(args.target, lambda path: torch.save(dict(state_dict=weights), path))
    kind = 'an EncoderDecoder' if any(key.startswith('backbone.') for key in weights) else 'a VisionTransformer alone'
    print(f'{args.target}: {len(weights)} tensors of {kind}')


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by key. Nothing in the file is executed; a file that would need it is refused."""
    if path.suffix == '.npz':
        if not path.is_file():
            raise FileNotFoundError(f'there is no checkpoint {str(path)!r}')
        try:
            with np.load(path) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays}
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f'{path} is no archive of arrays: {error}') from error
    checkpoint = load_checkpoint(path)
    for name in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(f"{path} holds neither a state_dict nor one under 'state_dict' or 'model'")
    return checkpoint


if __name__ == '__main__':
    run(main)
