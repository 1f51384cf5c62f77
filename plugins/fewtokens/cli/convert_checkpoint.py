"""Brings a published model under the key names of today's mmseg and mmdet, of ClipRetrieval, and of models of depth.

Segmenter, detrex's DINO, Mask2Former and MaskDINO (the last three with Swin) become checkpoints for `test`. DINO needs
fewtokens::_base_/dino-5scale_swin-l_detrex.py or its settings; Mask2Former is for mmdet, or with --arch
mask2former-mmseg for mmseg, with --arch mask2former-vis for mmdet's Mask2FormerVideo; MaskDINO is for
fewtokens::_base_/maskdino_swin-l_coco-*.py.

CLIP4Clip (meanP, seqTransf) and CenterCLIP are for the configs in fewtokens::centerclip; seqTransf needs
`temporal=dict(layers=4, max_frames=77)` in the model.

A ViT alone is for `model.pretrained` in a config, where mmseg resizes its position table to the config's image size; a
Swin alone for `model.backbone.init_cfg`, with `convert_weights=False`.

A DPT for KITTI or NYUv2 is for fewtokens::hourglass/dpt-hybrid_*.py; a folder or a file of one of transformers' models
of depth is for a config with a TransformersDepthEstimator.
"""

import argparse
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.keys import LAYOUTS, convert_keys
from ..checkpoints.reading import file_kind, load_checkpoint, state_dict_of
from ..measure.files import write_whole
from ..openmmlab.checkpoints import dataset_meta_of
from .options import HelpFormatter

# What a checkpoint is of, by the first name in its keys that is found.
KINDS = {
    'decode_head': 'an EncoderDecoder',
    'bbox_head': 'a DINO',
    'panoptic_head': 'a Mask2Former or a MaskDINO',
    'track_head': 'a Mask2FormerVideo',
    'backbone': 'a backbone alone',
    'encoder': 'a ClipRetrieval',
    'network': 'a TransformersDepthEstimator',
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    text = 'a .pth, .pt, .npz, .pkl or .safetensors file, or a folder of transformers'
    parser.add_argument('source', type=Path, metavar='IN', help=text)
    parser.add_argument('target', type=Path, metavar='OUT', help='the .pth file to write')
    parser.add_argument('--arch', choices=['auto', *LAYOUTS], default='auto', help='the layout of IN; auto finds it')
    args = parser.parse_args(arguments)
    checkpoint = read_folder(args.source) if args.source.is_dir() else read_checkpoint(args.source)
    weights = convert_weights(state_dict_of(checkpoint, args.source), args.arch, args.source)
    converted: dict[str, Any] = dict(state_dict=weights)
    if classes := dataset_meta_of(checkpoint):
        converted['meta'] = dict(dataset_meta=classes)
    # PyTorch's own writing to a full disk fails with a message of its file format.
    content = io.BytesIO()
    torch.save(converted, content)
    write_whole(args.target, lambda path: path.write_bytes(content.getbuffer()))
    prefixes = {key.partition('.')[0] for key in weights}
    kind = next((kind for prefix, kind in KINDS.items() if prefix in prefixes), 'a VisionTransformer alone')
    print(f'{args.target}: {len(weights)} tensors of {kind}')


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a file of weights holds. Nothing in the file is executed; a file that would need it is refused."""
    readers = dict(npz=read_archive, pickle=read_pickle)
    return readers.get(file_kind(path), load_checkpoint)(path)


def read_folder(path: Path) -> dict[str, Tensor]:
    """The weights of a folder of one of transformers' models of depth, under the names that it has today."""
    if not (path / 'config.json').is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {str(path)!r}, but a folder without transformers' config.json: name a file in it"
        )
    try:
        from transformers import AutoModelForDepthEstimation
    except ImportError as error:
        raise ImportError(f'{str(path)!r} needs transformers: pip install "fewtokens[huggingface]"') from error
    try:
        model = AutoModelForDepthEstimation.from_pretrained(path, local_files_only=True, use_safetensors=True)
    except Exception as error:  # noqa: BLE001  what a folder of something else raises can be anything
        raise ValueError(f'{str(path)!r} cannot be read as a model of depth: {first_line(error)}') from error
    return model.state_dict()


def read_archive(path: Path) -> dict[str, Tensor]:
    """The arrays of a .npz, as tensors."""
    try:
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}
    except Exception as error:  # noqa: BLE001  what a damaged archive raises can be anything
        raise ValueError(f'{str(path)!r} cannot be read as an archive of arrays: {first_line(error)}') from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """detectron2's model zoo: a pickle of arrays, as tensors."""
    try:
        with open(path, 'rb') as file:
            checkpoint = ArrayUnpickler(file, encoding='latin1').load()
        weights = checkpoint.get('model', checkpoint)
        return {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
    except Exception as error:  # noqa: BLE001  what a damaged pickle raises can be anything
        raise ValueError(f'{str(path)!r} cannot be read as a pickle of arrays: {first_line(error)}') from error


def first_line(error: Exception) -> str:
    return str(error).partition('\n')[0] or type(error).__name__


def convert_weights(weights: dict[str, Tensor], arch: str, source: Path) -> dict[str, Tensor]:
    """`convert_keys`, with errors that name the file."""
    try:
        return convert_keys(weights, arch)
    except (ValueError, RuntimeError, LookupError) as error:  # the last two from weights of other shapes or missing
        raise ValueError(f'{str(source)!r} cannot be converted: {first_line(error)}') from error
