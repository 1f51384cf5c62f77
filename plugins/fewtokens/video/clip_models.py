"""Models of open_clip: built by name or config, with their tokenizers and weights."""

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.reading import file_kind, load_checkpoint, reason_of, state_dict_of


def build_clip(name: str | None = None, config: str | dict[str, Any] | None = None, **options: Any) -> nn.Module:
    """A model of open_clip without weights, by its name or by a config in the form of open_clip's own.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError, ValueError: there is no such model or file.
    """
    open_clip = _open_clip()
    if (name is None) == (config is None):
        raise ValueError("clip must have a name, such as 'ViT-B-32', or a config, and not both")
    if name is not None:
        if name not in open_clip.list_models():
            raise ValueError(f'open_clip has no model {name!r}; it has {", ".join(open_clip.list_models())}')
        with _random_on_purpose():
            return open_clip.create_model(name, load_weights=False, device=torch.get_default_device(), **options)
    assert config is not None
    settings = {**read_config(config), **options}
    custom = settings.pop('custom_text', False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**settings)


def trained_options(name: str, pretrained: str | None) -> dict[str, Any]:
    """What `build_clip` must be told for some of open_clip's weights, by their tag; nothing for a file."""
    # Weights trained with the quick form of GELU, such as OpenAI's, are wrong with the exact one.
    quick = pretrained and (_open_clip().get_pretrained_cfg(name, pretrained) or {}).get('quick_gelu', False)
    return dict(quick_gelu=True) if quick else {}


@contextmanager
def _random_on_purpose() -> Iterator[None]:
    """open_clip's warning of random weights, which goes to the root logger, is left out."""
    root = logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:
        return 'No pretrained weights loaded' not in record.getMessage()

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def load_pretrained(clip: nn.Module, name: str | None, pretrained: str) -> None:
    """Fills a model of open_clip with weights: a file, or a tag that open_clip downloads.

    Raises:
        ValueError: neither a file nor a tag of this model, or not its weights.
    """
    open_clip = _open_clip()
    if Path(pretrained).is_file():
        path = pretrained
    else:
        tags = open_clip.list_pretrained_tags_by_model(name) if name else []
        if pretrained not in tags:
            raise ValueError(f'{pretrained!r} is no file of weights, nor a tag of {name}: {", ".join(tags) or "none"}')
        path = open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, pretrained))
    try:
        open_clip.load_checkpoint(clip, path)
    except Exception as error:  # noqa: BLE001  unpicklers raise whatever they like at a damaged file
        reason = _why_unfit(path, error)
        raise ValueError(f'{pretrained!r} does not fit {name or "the config"}: {reason}') from error


def _why_unfit(path: str, error: Exception) -> str:
    """Why open_clip could not take a file; a ValueError says so where the file itself is no checkpoint."""
    if file_kind(path) != 'npz':
        state_dict_of(load_checkpoint(path), path)
    return reason_of(error) if isinstance(error, pickle.UnpicklingError) else ' '.join(str(error).split())[:200]


def read_config(config: str | dict[str, Any]) -> dict[str, Any]:
    """A model's config in the form of open_clip's own, with the tokenizer's file where it is.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(config, dict):
        return dict(config)
    path = Path(config)
    if not path.is_file():
        raise FileNotFoundError(f'there is no model config {config!r}')
    content = json.loads(path.read_text())
    tokenizer = content.get('text_cfg', {}).get('tokenizer_kwargs') or {}
    if 'bpe_path' in tokenizer:
        tokenizer['bpe_path'] = str(path.absolute().parent / tokenizer['bpe_path'])
    return content


def build_tokenizer(clip: dict[str, Any]) -> Any:
    """The tokenizer of a model: settings as in `build_clip`."""
    open_clip = _open_clip()
    if clip.get('name') is not None:
        return open_clip.get_tokenizer(clip['name'])
    return open_clip.SimpleTokenizer(**read_config(clip['config'])['text_cfg'].get('tokenizer_kwargs') or {})


def embed_dim(clip: dict[str, Any]) -> int:
    """Length of a model's embeddings: settings as in `build_clip`."""
    name = clip.get('name')
    return (_open_clip().get_model_config(name) if name else read_config(clip['config']))['embed_dim']


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(f'ClipRetrieval needs {error.name}: pip install "fewtokens[video]"') from error
    return open_clip
