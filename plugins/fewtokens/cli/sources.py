"""Models to look at with a folder of pictures: of OpenMMLab's configs, of timm, of Hugging Face."""

import argparse
import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.reading import check_weights, load_checkpoint, state_dict_of
from ..hosts import ReplacedCall
from ..measure.agreement import Call
from ..measure.files import shown
from ..measure.macs import forward
from ..plugin import Plugin, parse_reducer
from ..report.pictures import find_pictures, read_filled
from .options import at_least

NAMES = (
    'config file, a name such as mmseg::segmenter/….py, a model of timm such as timm::vit_base_patch16_224, or one of '
    'Hugging Face such as transformers::facebook/dinov2-small or transformers::FOLDER'
)


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('folder', type=Path, help='folder of pictures like those that the model is for')


def add_source_options(parser: argparse.ArgumentParser, pictures: int, use: str) -> None:
    """What `open_source` asks for beside a name and a folder; `use` says what pictures are for."""
    parser.add_argument(
        '--checkpoint', help="the model's weights; pretrained ones of timm and Hugging Face if left out"
    )
    text = "of the input, for models of timm and Hugging Face; the model's own if left out"
    parser.add_argument('--shape', type=at_least(1), nargs=2, metavar=('H', 'W'), help=text)
    parser.add_argument('--pictures', type=at_least(1), default=pictures, help=use)
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged pictures out and count them')


@dataclass(frozen=True)
class Source:
    """A model with pictures as it takes them.

    Attributes:
        pictures: [1, 3, H, W] each, normalized.
        names: of their files.
        mean, std: by which they were, three values from 0 to 1 each.
        look: runs the backbone alone.
        timed: what the model is given when it is timed.
        work_dir: where results go.
        of_config: whether it is of an OpenMMLab config, which has a line for plugins.
        unreadable: names of pictures that were left out.
    """

    model: nn.Module
    pictures: list[Tensor]
    names: list[str]
    mean: np.ndarray
    std: np.ndarray
    timed: str
    work_dir: Path
    look: Call = forward
    of_config: bool = False
    unreadable: list[str] = field(default_factory=list)

    def settings(self, args: argparse.Namespace) -> dict[str, Any]:
        """What results say of it."""
        return dict(config=args.config, weights=args.checkpoint or 'pretrained', timed=self.timed)

    def tell_unreadable(self) -> None:
        if self.unreadable:
            print(f'{len(self.unreadable)} unreadable pictures left out: {", ".join(map(shown, self.unreadable))}')


def open_source(args: argparse.Namespace) -> Source:
    """The model that the options name, and the folder's pictures, of the type and with the threads asked for.

    Raises:
        FileNotFoundError, ValueError, ImportError: what is missing or wrong, and what would fit.
    """
    files = find_pictures(args.folder)
    # Evenly over the folder: neighbours may be frames of one film.
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(args.pictures, len(files))).round().astype(int)]
    package, separator, name = args.config.partition('::')
    make = SOURCES.get(package) if separator else None
    if args.threads:
        torch.set_num_threads(args.threads)
    source = from_config(args, chosen) if make is None else make(args, name, chosen)
    dtype = getattr(torch, args.dtype)
    return replace(source, model=source.model.to(dtype), pictures=[picture.to(dtype) for picture in source.pictures])


def plugin_parser(name: str) -> Callable[[str], Plugin]:
    """What reads the plugins for a model of this name: for a config, OpenMMLab's registry, with methods of others."""
    if name.partition('::')[0] in SOURCES:
        return parse_reducer
    from ..openmmlab.registry import parse_plugin

    return parse_plugin


def from_config(args: argparse.Namespace, files: list[Path]) -> Source:
    if args.shape:
        raise ValueError(
            "--shape is for models of timm and Hugging Face: a config's test pipeline says how large its pictures are"
        )
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
        names=[file.name for file in batches],
        mean=_of_pixels(model.data_preprocessor, 'mean', 0.0),
        std=_of_pixels(model.data_preprocessor, 'std', 255.0),
        timed=prepared[0][1],
        work_dir=Path(args.work_dir or config.work_dir),
        look=lambda model, inputs: model.extract_feat(inputs),
        of_config=True,
        unreadable=unreadable,
    )


def _of_pixels(preprocessor: nn.Module, name: str, default: float) -> np.ndarray:
    """A preprocessor's mean or deviation of values up to 255, where it has one, for values up to 1."""
    values = getattr(preprocessor, name, None)
    return np.full(3, default / 255, np.float32) if values is None else values.flatten().cpu().numpy() / 255


def from_timm(args: argparse.Namespace, name: str, files: list[Path]) -> Source:
    """A model of timm, with its own pretrained weights if no checkpoint is named."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'{args.config} needs timm: pip install timm') from error
    model = _make_timm(timm, name, args.checkpoint, _timm_options(timm, name, args))
    data = timm.data.resolve_model_data_config(model)
    shape = tuple(args.shape or data['input_size'][1:])
    return _with_pictures(args, name, model.eval(), files, shape, data['mean'], data['std'])


def from_transformers(args: argparse.Namespace, name: str, files: list[Path]) -> Source:
    """A model of Hugging Face with its own weights: a folder, or a name on the hub."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f'{args.config} needs transformers: pip install "fewtokens[huggingface]"') from error
    if args.checkpoint:
        raise ValueError(f'--checkpoint={args.checkpoint}: {args.config} has weights of its own')
    try:
        model = transformers.AutoModel.from_pretrained(name, **(args.cfg_options or {})).eval()
    except Exception as error:  # noqa: BLE001  what a download raises can be anything
        reason = str(error).strip().partition('\n')[0]
        raise ValueError(f'{name} cannot be made: {reason}') from error
    # Models of text and pictures: the part that sees.
    model = getattr(model, 'vision_model', model)
    mean, std = _normalization(transformers, name)
    shape = tuple(args.shape or _pair(getattr(model.config, 'image_size', 224)))
    if 'interpolate_pos_encoding' in inspect.signature(model.forward).parameters:
        # Asked for at every call: else only pictures of the one size are taken.
        ReplacedCall(model, _interpolating)
    return _with_pictures(args, name, model, files, shape, mean, std)


def _interpolating(module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    return forward(*args, **{'interpolate_pos_encoding': True, **kwargs})


def _normalization(transformers: Any, name: str) -> tuple[Any, Any]:
    """The model's own mean and deviation; ImageNet's where it doesn't say."""
    try:
        found = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return transformers.image_utils.IMAGENET_DEFAULT_MEAN, transformers.image_utils.IMAGENET_DEFAULT_STD
    return found.image_mean, found.image_std


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


SOURCES = dict(timm=from_timm, transformers=from_transformers)
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


def _with_pictures(
    args: argparse.Namespace,
    name: str,
    model: nn.Module,
    files: list[Path],
    shape: tuple[int, int],
    mean: Any,
    std: Any,
) -> Source:
    """Of a model that takes pictures of one shape, which it is tried on first."""
    pictures, unreadable = _read(files, shape, mean, std, args.skip_unreadable)
    try:
        with torch.no_grad():
            model(next(iter(pictures.values())))
    except (AssertionError, ValueError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(f'{name} takes no pictures of {shape[0]} x {shape[1]}: {reason}') from error
    return Source(
        model=model.to(args.device),
        pictures=[picture.to(args.device) for picture in pictures.values()],
        names=list(pictures),
        mean=np.array(mean, np.float32),
        std=np.array(std, np.float32),
        timed=f'a picture of {shape[0]} x {shape[1]}',
        work_dir=Path(args.work_dir or Path('work_dirs') / Path(name).name),
        unreadable=unreadable,
    )


def _read(
    files: list[Path], shape: tuple[int, int], mean: Any, std: Any, skip: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Pictures by name, and the names of those that were left out."""
    pictures, unreadable = {}, []
    for file in files:
        pixels = read_filled(file, shape)
        if pixels is not None:
            scaled = (pixels / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
            pictures[file.name] = torch.from_numpy(scaled).permute(2, 0, 1)[None].contiguous()
        elif skip:
            unreadable.append(file.name)
        else:
            raise ValueError(f'{shown(file)} is no readable picture; --skip-unreadable leaves such files out')
    if not pictures:
        raise ValueError(f'none of the {len(files)} pictures can be read')
    return pictures, unreadable
