"""A folder of pictures through a model, with and without a plugin, side by side."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from ..measure.files import write_whole
from ..measure.progress import progress_bar
from ..measure.variants import Variant
from ..report.drawing import draw_prediction, read_image, with_depth_bounds
from ..report.pictures import draw_clusters, encode_jpeg, find_pictures
from ..report.predictions import Prediction, write_predictions_page
from .hook import never_took_effect
from .pictures import load_pictures
from .predict import look


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
    files = find_pictures(folder)
    metainfo = {} if predicts_depth(model) else complete_metainfo(model.dataset_meta, config)
    batches, unreadable = load_pictures(config, files, skip_unreadable)
    predictions = []
    with progress_bar(len(batches), 'predicting') as bar:
        for file, batch in batches.items():
            predictions.append(_predict(model, variants, file, batch, metainfo, out))
            bar.update()
    write_predictions_page(out / 'index.html', [variant.name for variant in variants], predictions, unreadable)
    for variant, *reduced in zip(variants, *(prediction.reduced for prediction in predictions)):
        if variant.reducer is not None and not any(reduced):
            raise ValueError(never_took_effect(variant.reducer))
    return predictions, unreadable


def predicts_depth(model: nn.Module) -> bool:
    """Whether it is one of mmseg's models of depth, or of ours, which have no classes."""
    return any(cls.__name__.endswith('DepthEstimator') for cls in type(model).__mro__)


def complete_metainfo(known: dict[str, Any] | None, config: Config) -> dict[str, Any]:
    """Classes and palette to draw with: a checkpoint's, and those of the config's test set where it has none.

    A palette that neither has for these classes is of random colours, the same each time, as mmseg's are.

    Raises:
        ValueError: neither says what the classes are.
    """
    known = dict(known or {})
    if not known.get('classes') or not known.get('palette'):
        dataset = config.test_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        own = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo
        known.setdefault('classes', own.get('classes'))
        if not known['classes']:
            raise ValueError("neither the checkpoint nor the config's test set says what the model's classes are")
        if len(own.get('classes') or ()) == len(known['classes']):
            known = {**own, **known}
    if not known.get('palette'):
        known['palette'] = np.random.RandomState(42).randint(0, 255, (len(known['classes']), 3)).tolist()
    return known


def _predict(
    model: nn.Module, variants: list[Variant], file: Path, batch: dict[str, Any], metainfo: dict[str, Any], out: Path
) -> Prediction:
    milliseconds, reduced = [], []
    painted: list[np.ndarray] = []
    for variant in variants:
        start = time.perf_counter()
        (seen,) = look(model, variant, batch)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        reduced.append(seen.reduced)
        if not painted:
            painted.append(read_image(seen.sample))
        image, metainfo = painted[0], with_depth_bounds(metainfo, seen.sample)
        painted.append(draw_prediction(image, seen.sample, metainfo))
        if seen.clusters is not None:
            painted.append(draw_clusters(image, seen.clusters))
    name = f'{file.name}.jpg'
    write_whole(out / name, lambda path: path.write_bytes(encode_jpeg(np.concatenate(painted, axis=1))))
    return Prediction(name, milliseconds, reduced)
