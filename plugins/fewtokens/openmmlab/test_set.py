"""A config's test set, on which variants of a model are evaluated."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..measure.accuracy import Accuracy
from ..measure.files import write_whole
from ..measure.progress import progress_bar
from ..measure.resampling import Resampled
from ..measure.variants import Variant
from ..version import __version__
from .config import list_evaluators
from .data import check_samples
from .loading import sample_paths
from .metrics import collect_statistics, in_percent, use_our_metrics
from .model import quiet_log
from .predict import predict


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
        self.unreadable = check_samples(dataset, skip_unreadable, config.test_dataloader.get('num_workers', 0))
        self.data = _fingerprint(dataset, config.test_evaluator)
        loader = {**config.test_dataloader, 'dataset': dataset, 'batch_size': batch, 'persistent_workers': False}
        self.loader = Runner.build_dataloader(loader)
        if any(metric.get('format_only') for metric in list_evaluators(config.test_evaluator)):
            raise ValueError('test_evaluator has format_only=True: it writes what was found and measures nothing')
        self._build_evaluator()  # to say at once what is wrong with it

    @torch.no_grad()
    def evaluate(self, model: nn.Module, variant: Variant) -> Accuracy:
        """Runs all of the test set through a variant of the model, or finds that this was done before."""
        path = self.folder / f'{self._key(variant)}.npz'
        if path.exists():
            print(f'{variant.name}: evaluated in an earlier run', file=sys.stderr)
            return Accuracy.load(path)
        # mmdet's metric of videos can be asked but once.
        evaluator = self._build_evaluator()
        finite, what = True, f'evaluating {variant.name}'
        with variant.applied(model), _watch(model) as features, progress_bar(len(self.loader), what) as bar:
            for batch in self.loader:
                samples = predict(model, variant, batch)
                finite &= all(map(_is_finite, samples))
                evaluator.process(data_samples=samples, data_batch=batch)
                bar.update()
        statistics: dict[str, Resampled] = {}
        examples: dict[str, np.ndarray] = {}
        for metric in evaluator.metrics:
            statistics |= collect_statistics(metric)
        with quiet_log():
            metrics = in_percent(evaluator.evaluate(len(self.loader.dataset)))
        for metric in evaluator.metrics:
            statistics |= getattr(metric, 'statistics', {})
            examples |= getattr(metric, 'examples', {})
        accuracy = Accuracy(metrics, statistics, finite and all(features), examples)
        write_whole(path, accuracy.save)
        return accuracy

    def _key(self, variant: Variant) -> str:
        described = [self.config.pretty_text, self.weights, self.data, variant.name, __version__]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]

    def _build_evaluator(self) -> Evaluator:
        # MMEngine warns of each metric that has no prefix.
        with quiet_log():
            evaluator = Evaluator(list_evaluators(use_our_metrics(self.config.test_evaluator)))
        evaluator.dataset_meta = self.loader.dataset.metainfo
        return evaluator

    def first_images(self, count: int) -> Iterator[dict[str, Any]]:
        """The first samples of the test set, each a batch of its own."""
        for index in range(min(count, len(self.loader.dataset))):
            yield self.loader.collate_fn([self.loader.dataset[index]])


def _is_finite(sample: Any) -> bool:
    outputs = [sample.get(name) for name in ('seg_logits', 'pred_depth_map', 'video_embedding', 'text_embeddings')]
    return all(getattr(output, 'data', output).isfinite().all().item() for output in outputs if output is not None)


@contextmanager
def _watch(model: nn.Module) -> Iterator[list[bool]]:
    """A list that says of each output of the backbone whether it was finite: a detector just finds nothing if not."""
    found: list[bool] = []
    if not hasattr(model, 'backbone'):
        yield found
        return

    def look(module: nn.Module, args: tuple, output: Any) -> None:
        outputs = output if isinstance(output, (list, tuple)) else [output]
        found.extend(x.isfinite().all().item() for x in outputs if isinstance(x, Tensor))

    handle = model.backbone.register_forward_hook(look)
    try:
        yield found
    finally:
        handle.remove()


def _fingerprint(dataset: Any, evaluators: Any) -> str:
    """Tells data sets apart by what is in their files: data may be made anew under the same names."""
    paths = [getattr(dataset, 'ann_file', None), *(metric.get('ann_file') for metric in list_evaluators(evaluators))]
    for index in range(len(dataset)):
        paths += sample_paths(dataset.get_data_info(index))
    digest = hashlib.sha256()
    for path in filter(None, paths):
        if Path(path).is_file():
            digest.update(Path(path).read_bytes())
    return digest.hexdigest()
