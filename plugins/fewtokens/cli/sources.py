"""Models to look at with a folder of pictures: of OpenMMLab's configs, of timm."""

import argparse
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.reading import check_weights, load_checkpoint, state_dict_of
from ..measure.agreement import Call
from ..measure.files import shown
from ..measure.macs import forward
from ..report.pictures import find_pictures, read_filled


@dataclass(frozen=True)
class Source:
    """A model with pictures as it takes them.

    Attributes:
        pictures: [1, 3, H, W] each.
        look: runs the backbone alone.
        timed: what the model is given when it is timed.
        work_dir: where results go.
        of_config: whether it is of an OpenMMLab config, which has a line for plugins.
        unreadable: names of pictures that were left out.
    """

    model: nn.Module
    pictures: list[Tensor]
    timed: str
    work_dir: Path
    look: Call = forward
    of_config: bool = False
    unreadable: list[str] = field(default_factory=list)


def open_source(args: argparse.Namespace) -> Source:
    """The model that the options name, and the folder's pictures.

    Raises:
        FileNotFoundError, ValueError, ImportError: what is missing or wrong, and what would fit.
    """
    files = find_pictures(args.folder)
    # Evenly over the folder: neighbours may be frames of one film.
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(args.pictures, len(files))).round().astype(int)]
    package, separator, name = args.config.partition('::')
    make = SOURCES.get(package) if separator else None
    return from_config(args, chosen) if make is None else make(args, name, chosen)


def from_config(args: argparse.Namespace, files: list[Path]) -> Source:
    if args.shape:
        raise ValueError("--shape is for timm's models: a config's test pipeline says how large its pictures are")
    # Here, for timm's models need no OpenMMLab.
    from ..openmmlab.config import load_config
    from ..openmmlab.model import build_model
    from ..openmmlab.pictures import load_pictures, network_inputs
    from .config import host_config

    config = load_config(args.config, args.cfg_options)
    if config.model.type == 'ClipRetrieval':
        raise ValueError(f'{args.config} is of videos: pictures cannot say how well those agree')
    if not args.checkpoint:
        raise ValueError(f'{args.config} needs its weights to be compared: name them with --checkpoint')
    model = build_model(host_config(config), args.checkpoint, args.device)
    batches, unreadable = load_pictures(config, files, args.skip_unreadable)
    prepared = [network_inputs(model, batch) for batch in batches.values()]
    return Source(
        model=model,
        pictures=[inputs for inputs, _ in prepared],
        timed=prepared[0][1],
        work_dir=Path(args.work_dir or config.work_dir),
        look=lambda model, inputs: model.extract_feat(inputs),
        of_config=True,
        unreadable=unreadable,
    )


def from_timm(args: argparse.Namespace, name: str, files: list[Path]) -> Source:
    """A model of timm, with its own pretrained weights if no checkpoint is named."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'{args.config} needs timm: pip install timm') from error
    model = _make_timm(timm, name, args.checkpoint, _timm_options(timm, name, args))
    data = timm.data.resolve_model_data_config(model)
    shape = tuple(args.shape or data['input_size'][1:])
    pictures, unreadable = _read(files, shape, data['mean'], data['std'], args.skip_unreadable)
    try:
        with torch.no_grad():
            model.eval()(pictures[0])
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{name} takes no pictures of {shape[0]} x {shape[1]}: {reason}') from error
    return Source(
        model=model.to(args.device),
        pictures=[picture.to(args.device) for picture in pictures],
        timed=f'a picture of {shape[0]} x {shape[1]}',
        work_dir=Path(args.work_dir or Path('work_dirs') / name),
        unreadable=unreadable,
    )


SOURCES = dict(timm=from_timm)
"""By what stands before `::`; other names are configs. A new kind of model is one function and one entry."""


def _timm_options(timm: Any, name: str, args: argparse.Namespace) -> dict[str, Any]:
    options = dict(args.cfg_options or {})
    if args.shape and not {'img_size', 'dynamic_img_size'} & set(options):
        # Positions are resized as pictures come in, so that the checkpoint's fit.
        options['dynamic_img_size'] = True
    return options


def _make_timm(timm: Any, name: str, checkpoint: str | None, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name.partition('.')[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise ValueError(f'timm has no model {name!r}; the nearest are: {", ".join(near) or "none"}')
    try:
        model = timm.create_model(name, pretrained=checkpoint is None, **options)
    except TypeError as error:
        raise ValueError(f'{name} does not take {options}: {error}') from error
    except Exception as error:  # noqa: BLE001  what a download raises can be anything
        reason = str(error).strip().partition('\n')[0]
        raise ValueError(f'{name} cannot be made: {reason}. --checkpoint names weights in a file') from error
    if checkpoint is not None:
        state = state_dict_of(load_checkpoint(checkpoint), checkpoint)
        check_weights(model, state, checkpoint)
        model.load_state_dict(state, strict=False)
    return model


def _read(files: list[Path], shape: tuple[int, int], mean: Any, std: Any, skip: bool) -> tuple[list[Tensor], list[str]]:
    pictures, unreadable = [], []
    for file in files:
        pixels = read_filled(file, shape)
        if pixels is not None:
            scaled = (pixels / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
            pictures.append(torch.from_numpy(scaled).permute(2, 0, 1)[None].contiguous())
        elif skip:
            unreadable.append(file.name)
        else:
            raise ValueError(f'{shown(file)} is no readable picture; --skip-unreadable leaves such files out')
    if not pictures:
        raise ValueError(f'none of the {len(files)} pictures can be read')
    return pictures, unreadable
