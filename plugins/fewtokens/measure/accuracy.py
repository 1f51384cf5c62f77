"""Accuracy of each variant on a config's test set, image by image where the metric allows it."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import nn

from ..openmmlab.data import check_samples, sample_paths
from ..openmmlab.model import quiet_log
from ..version import __version__
from .files import write_whole
from .variants import Variant


@dataclass(frozen=True)
class Accuracy:
    """Metrics in percent, the headline first; per-image areas for intervals where the headline is mIoU."""

    metrics: dict[str, float]
    intersections: np.ndarray | None = None
    """[images, classes] pixels."""
    unions: np.ndarray | None = None
    finite: bool = True
    """Whether every output was."""


class TestSet:
    """A config's test data and evaluator. Evaluations are kept in a folder, and taken from there when repeated.

    Attributes:
        unreadable: paths of the damaged samples that were left out.

    Raises:
        ValueError: a sample's files are missing or damaged, and `skip_unreadable` is off.
    """

    __test__ = False  # not for pytest

    def __init__(
        self, config: Config, checkpoint: str, folder: Path, batch: int, skip_unreadable: bool = False
    ) -> None:
        self.config = config
        self.folder = folder / 'evaluations'
        self.checkpoint = checkpoint
        self.weights = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
        # Samples go before the loader is built: its sampler counts them.
        dataset = DATASETS.build(config.test_dataloader.dataset)
        self.unreadable = check_samples(dataset, skip_unreadable)
        self.data = _fingerprint(dataset)
        loader = {**config.test_dataloader, 'dataset': dataset, 'batch_size': batch, 'persistent_workers': False}
        self.loader = Runner.build_dataloader(loader)
        self.evaluator = _build_evaluator(config)
        self.evaluator.dataset_meta = self.loader.dataset.metainfo

    @torch.no_grad()
    def evaluate(self, model: nn.Module, variant: Variant) -> Accuracy:
        """Runs all of the test set through a variant of the model, or finds that this was done before."""
        path = self.folder / f'{self._key(variant)}.npz'
        if path.exists():
            print(f'{variant.name}: evaluated in an earlier run', file=sys.stderr)
            return _load(path)
        print(f'{variant.name}:', file=sys.stderr)
        finite, progress = True, ProgressBar(len(self.loader), file=sys.stderr)
        with variant.applied(model):
            for batch in self.loader:
                samples = predict(model, variant, batch)
                finite &= all(s.seg_logits.data.isfinite().all().item() for s in samples if 'seg_logits' in s)
                self.evaluator.process(data_samples=samples, data_batch=batch)
                progress.update()
        print(file=sys.stderr)
        areas = _areas(self.evaluator)
        with quiet_log():
            metrics = _headline_first(self.evaluator.evaluate(len(self.loader.dataset)))
        accuracy = Accuracy(metrics, *(areas or (None, None)), finite)
        write_whole(path, lambda temporary: _save(temporary, accuracy))
        return accuracy

    def _key(self, variant: Variant) -> str:
        described = [self.config.pretty_text, self.weights, self.data, variant.name, __version__]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]

    def first_images(self, count: int) -> Iterator[dict[str, Any]]:
        """The first samples of the test set, each a batch of its own."""
        for index in range(min(count, len(self.loader.dataset))):
            yield self.loader.collate_fn([self.loader.dataset[index]])


def predict(model: nn.Module, variant: Variant, batch: dict[str, Any]) -> list[Any]:
    """Data samples with predictions, at the size of the labels whatever the variant does to the input."""
    if len({image.shape for image in batch['inputs']}) > 1:
        # mmseg stacks images of one size only.
        singles = [dict(inputs=[i], data_samples=[s]) for i, s in zip(batch['inputs'], batch['data_samples'])]
        return [sample for single in singles for sample in predict(model, variant, single)]
    data = model.data_preprocessor(batch, False)
    data['inputs'] = variant.resize(data['inputs'])
    return model(**data, mode='predict')


def bootstrap_difference(
    first: Accuracy, second: Accuracy, draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of first minus second in points of mIoU, over images drawn with replacement; None without areas."""
    if first.unions is None or second.unions is None:
        return None
    images = len(first.unions)
    # How often each image is drawn: areas then add up by one matrix product.
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)
    differences = [_mean_iou(counts @ a.intersections, counts @ a.unions) for a in (first, second)]
    low, high = np.percentile(differences[0] - differences[1], (2.5, 97.5))
    return float(low), float(high)


def _mean_iou(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    unions = np.where(unions > 0, unions, np.nan)
    return 100 * np.nanmean(intersections / unions, axis=-1)


def _fingerprint(dataset: Any) -> str:
    """Tells data sets apart by what is in their files: data may be made anew under the same names."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        for path in sample_paths(dataset.get_data_info(index)):
            if Path(path).is_file():
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _areas(evaluator: Evaluator) -> tuple[np.ndarray, np.ndarray] | None:
    """Per-image areas, which mmseg's IoUMetric keeps until it computes its metrics."""
    for metric in evaluator.metrics:
        if type(metric).__name__ == 'IoUMetric':
            return tuple(np.stack([np.asarray(row[i], np.float64) for row in metric.results]) for i in (0, 1))
    return None


def _build_evaluator(config: Config) -> Evaluator:
    settings = config.test_evaluator
    return Evaluator(settings if isinstance(settings, list) else [settings])


def _headline_first(metrics: dict[str, float]) -> dict[str, float]:
    """mIoU, where there is one, comes first; values become plain numbers."""
    order = sorted(metrics, key=lambda name: name != 'mIoU')
    return {name: float(metrics[name]) for name in order if np.isscalar(metrics[name])}


def _save(path: Path, accuracy: Accuracy) -> None:
    areas = {} if accuracy.unions is None else dict(intersections=accuracy.intersections, unions=accuracy.unions)
    np.savez(path, metrics=json.dumps(accuracy.metrics), finite=accuracy.finite, **areas)


def _load(path: Path) -> Accuracy:
    stored = np.load(path)
    areas = (stored['intersections'], stored['unions']) if 'unions' in stored else (None, None)
    return Accuracy(json.loads(str(stored['metrics'])), *areas, bool(stored['finite']))
