"""A folder of pictures through a model, with and without a plugin, side by side."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from ..measure.files import shown, write_whole
from ..measure.progress import progress_bar
from ..measure.variants import Variant
from ..openmmlab.hook import never_took_effect
from .drawing import complete_metainfo, draw_prediction, read_image
from .pictures import draw_clusters, encode_jpeg, look

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Prediction:
    """One picture: the file of its overlays, and of each variant, in their order, milliseconds and if it reduced."""

    file: str
    milliseconds: list[float]
    reduced: list[bool]


def predict_folder(
    config: Config, model: nn.Module, variants: list[Variant], folder: Path, out: Path, skip_unreadable: bool = False
) -> tuple[list[Prediction], list[str]]:
    """Writes one picture a file into `out` (the input, then each variant's prediction and clusters) and index.html.

    Returns:
        the predictions, and the names of unreadable files that were left out.

    Raises:
        FileNotFoundError: there is no folder, or no picture in it.
        ValueError: a picture can't be read and `skip_unreadable` is off; or a reducer never took effect, which is known
            when all is written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(folder)!r}')
    # Hidden files are no pictures, whatever they end in: macOS keeps what it knows of a.jpg in ._a.jpg.
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith('.'))
    if not files:
        raise FileNotFoundError(f'no pictures in {str(folder)!r}: files ending in {", ".join(SUFFIXES)} are looked for')
    steps = config.test_dataloader.dataset.pipeline
    pipeline = Compose([step for step in steps if not step['type'].endswith('Annotations')])
    metainfo = complete_metainfo(model.dataset_meta, config)
    batches, unreadable = _load(pipeline, files, skip_unreadable)
    predictions = []
    with progress_bar(len(batches)) as bar:
        for file, batch in batches.items():
            predictions.append(_predict(model, variants, file, batch, metainfo, out))
            bar.update()
    names = [variant.name for variant in variants]
    pages = jinja2.Environment(autoescape=True)
    pages.filters |= dict(shown=shown, as_link=lambda name: quote(os.fsencode(name)))
    page = pages.from_string((Path(__file__).parent / 'predictions.html').read_text())
    html = page.render(names=names, predictions=predictions, unreadable=unreadable)
    write_whole(out / 'index.html', lambda path: path.write_bytes(html.encode()))
    for variant, *reduced in zip(variants, *(prediction.reduced for prediction in predictions)):
        if variant.reducer is not None and not any(reduced):
            raise ValueError(never_took_effect(variant.reducer))
    return predictions, unreadable


def _load(pipeline: Compose, files: list[Path], skip: bool) -> tuple[dict[Path, Any], list[str]]:
    batches, unreadable = {}, []
    for file in files:
        try:
            data = pipeline(dict(img_path=str(file), img_id=0))
        except Exception as error:  # noqa: BLE001  decoders raise whatever they like at a damaged file
            if not skip:
                raise ValueError(
                    f'{shown(file)} is no readable picture; --skip-unreadable leaves such files out'
                ) from error
            unreadable.append(file.name)
            continue
        batches[file] = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    if not batches:
        raise ValueError(f'none of the {len(files)} pictures can be read')
    return batches, unreadable


def _predict(
    model: nn.Module, variants: list[Variant], file: Path, batch: dict[str, Any], metainfo: dict[str, Any], out: Path
) -> Prediction:
    milliseconds, reduced, painted = [], [], []
    for variant in variants:
        start = time.perf_counter()
        (seen,) = look(model, variant, batch)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        reduced.append(seen.reduced)
        if not painted:
            painted.append(read_image(seen.sample))
        image = painted[0]
        painted.append(draw_prediction(image, seen.sample, metainfo))
        if seen.clusters is not None:
            painted.append(draw_clusters(image, seen.clusters))
    name = f'{file.name}.jpg'
    write_whole(out / name, lambda path: path.write_bytes(encode_jpeg(np.concatenate(painted, axis=1))))
    return Prediction(name, milliseconds, reduced)
