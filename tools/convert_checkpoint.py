"""Brings a published model under the key names of today's mmseg and mmdet, and of ClipRetrieval.

Segmenter, detrex's DINO and Mask2Former (the last two with Swin) become checkpoints for tools/test.py. DINO needs
configs/_base_/dino-5scale_swin-l_detrex.py or its settings; Mask2Former is for mmdet, or with --arch mask2former-mmseg
for mmseg. So do CLIP4Clip (meanP, seqTransf) and CenterCLIP, for configs/centerclip; seqTransf needs
`temporal=dict(layers=4, max_frames=77)` in the model. A ViT alone is for `model.pretrained` in a config, where mmseg
resizes its position table to the config's image size; a Swin alone for `model.backbone.init_cfg`, with
`convert_weights=False`.
"""

import argparse
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.measure.files import write_whole
from fewtokens.openmmlab.checkpoint_keys import LAYOUTS, convert_keys
from fewtokens.openmmlab.cli import run
from fewtokens.openmmlab.model import load_checkpoint

# What a checkpoint is of, by the first name in its keys that is found.
KINDS = {
    'decode_head': 'an EncoderDecoder',
    'bbox_head': 'a DINO',
    'panoptic_head': 'a Mask2Former',
    'backbone': 'a backbone alone',
    'encoder': 'a ClipRetrieval',
}
# All that a pickle of arrays is made of. The last is how old pickles write bytes.
ARRAY_GLOBALS = {
    *((f'numpy.{core}.multiarray', name) for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
    *(('numpy', name) for name in ('ndarray', 'dtype')),
    ('collections', 'OrderedDict'),
    ('_codecs', 'encode'),
}


class ArrayUnpickler(pickle.Unpickler):
    """Refuses all but arrays and plain containers of them, before anything of it is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_GLOBALS:
            raise pickle.UnpicklingError(f'it carries {module}.{name}, which is no array')
        return super().find_class(module, name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN', help='a .pth, .npz or .pkl file')
    parser.add_argument('target', type=Path, metavar='OUT', help='the .pth file to write')
    parser.add_argument('--arch', choices=['auto', *LAYOUTS], default='auto', help='the layout of IN, found by itself')
    args = parser.parse_args(arguments)
    weights = convert_keys(read_weights(args.source), args.arch)
    # PyTorch's own writing to a full disk fails with a message of its file format.
    content = io.BytesIO()
    torch.save(dict(state_dict=weights), content)
    write_whole(args.target, lambda path: path.write_bytes(content.getbuffer()))
    prefixes = {key.partition('.')[0] for key in weights}
    kind = next((kind for prefix, kind in KINDS.items() if prefix in prefixes), 'a VisionTransformer alone')
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
    checkpoint = read_arrays(path) if path.suffix == '.pkl' else load_checkpoint(path)
    for name in ('state_dict', 'model'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict) or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(f"{path} holds neither a state_dict nor one under 'state_dict' or 'model'")
    return checkpoint


def read_arrays(path: Path) -> Any:
    """detectron2's model zoo: a pickle of arrays, as tensors."""
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {str(path)!r}')
    try:
        with open(path, 'rb') as file:
            checkpoint = ArrayUnpickler(file, encoding='latin1').load()
        weights = checkpoint.get('model', checkpoint)
        return {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
    except Exception as error:  # what a damaged pickle raises can be anything
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise ValueError(f'{path} cannot be read as a pickle of arrays: {reason}') from error


if __name__ == '__main__':
    run(main)
