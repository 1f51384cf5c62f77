"""The headline metric again for any resample of the images: what intervals are drawn from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch


class Resampled(Protocol):
    """A metric's statistics by sample, as a dataclass of arrays; register a new one in `KINDS`.

    Attributes:
        draws: how many resamples an interval takes.
    """

    draws: ClassVar[int]

    @property
    def samples(self) -> int:
        """How many images (or queries) the metric was computed over."""

    def headline(self, counts: np.ndarray) -> np.ndarray:
        """The metric as it is reported, most in percent, [draws].

        Args:
            counts: how often each sample is drawn, [draws, samples].
        """


@dataclass(frozen=True)
class Areas:
    """mIoU: pixels in common and in either, [images, classes] each."""

    draws: ClassVar[int] = 2000
    intersections: np.ndarray
    unions: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.unions)

    def headline(self, counts: np.ndarray) -> np.ndarray:
        return 100 * _mean_ratio(counts @ self.intersections, counts @ self.unions)


@dataclass(frozen=True)
class Segments:
    """PQ: IoU summed over matched segments, and how many were matched, invented and missed, [images, classes] each."""

    draws: ClassVar[int] = 2000
    iou: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.iou)

    def headline(self, counts: np.ndarray) -> np.ndarray:
        return 100 * _mean_ratio(counts @ self.iou, counts @ (self.tp + (self.fp + self.fn) / 2))


@dataclass(frozen=True)
class Detections:
    """COCO's AP over all sizes of objects: detections, sorted by score within an image and class, and their matches.

    A detection that is drawn twice stands twice in the ranking; the precision envelope makes weights exact for that.

    Attributes:
        scores: [detections].
        images, classes: indices, [detections] each.
        outcomes: at each IoU threshold 1 for a match, 0 for a false alarm, -1 for a crowd's, [detections, thresholds].
        objects: objects that can be found, crowds left out, [images, classes].
    """

    draws: ClassVar[int] = 500
    scores: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    outcomes: np.ndarray
    objects: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.objects)

    def headline(self, counts: np.ndarray) -> np.ndarray:
        classes = np.flatnonzero(self.objects.any(0))
        return 100 * np.nanmean([self._class_precision(counts, c) for c in classes], axis=0)

    def _class_precision(self, counts: np.ndarray, index: int) -> np.ndarray:
        """AP of one class, [draws]; NaN in draws without an object of it."""
        own = np.flatnonzero(self.classes == index)
        own = own[np.lexsort((self.images[own], -self.scores[own]))]
        objects = counts @ self.objects[:, index]
        weights = counts[:, self.images[own]]
        curves = [_mean_precision(weights, outcome, objects) for outcome in self.outcomes[own].T]
        return np.where(objects > 0, np.mean(curves, axis=0), np.nan)


@dataclass(frozen=True)
class Recalls:
    """Recall of a search, resampled over videos with all their texts; what is searched stays the same.

    Attributes:
        hits: queries of each video that were answered rightly, a part of one where candidates were equal, [videos].
        queries: how many it has, [videos].
    """

    draws: ClassVar[int] = 2000
    hits: np.ndarray
    queries: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.hits)

    def headline(self, counts: np.ndarray) -> np.ndarray:
        queries = counts @ self.queries
        return 100 * (counts @ self.hits) / np.where(queries > 0, queries, np.nan)


@dataclass(frozen=True)
class Means:
    """The mean of a number that each image has, [images]."""

    draws: ClassVar[int] = 2000
    values: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.values)

    def headline(self, counts: np.ndarray) -> np.ndarray:
        return counts @ self.values / counts.sum(axis=1)


KINDS = {cls.__name__: cls for cls in (Areas, Segments, Detections, Recalls, Means)}
RECALLS = np.linspace(0, 1, 101)


def interval_of_difference(first: Resampled, second: Resampled, seed: int = 0) -> tuple[float, float]:
    """95 % interval of first minus second in points of the headline, over samples drawn with replacement."""
    samples = first.samples
    # How often each image is drawn, the same in both.
    counts = np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), size=first.draws)
    low, high = np.nanpercentile(first.headline(counts) - second.headline(counts), (2.5, 97.5))
    return float(low), float(high)


def interval_of(values: np.ndarray, statistic: Callable = np.mean, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of a statistic such as the mean of values [samples], drawn with replacement.

    Args:
        statistic: takes values and an axis.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(statistic(np.asarray(values)[drawn], axis=1), (2.5, 97.5))
    return float(low), float(high)


def _mean_ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Mean over the last axis, where the whole is more than nothing."""
    return np.nanmean(parts / np.where(wholes > 0, wholes, np.nan), axis=-1)


def _mean_precision(weights: np.ndarray, outcome: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Precision at COCO's 101 recalls, averaged, [draws].

    Args:
        weights: how often each detection is drawn, [draws, detections], best score first.
        outcome: 1, 0 or -1, [detections].
        objects: how many there are to find, [draws].
    """
    hits = np.cumsum(weights * (outcome == 1), axis=1)
    alarms = np.cumsum(weights * (outcome == 0), axis=1)
    envelope = np.maximum.accumulate((hits / (hits + alarms + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    # Beyond the last detection there is no precision.
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    recalls = hits / np.maximum(objects, 1)[:, None]
    # NumPy's search takes one row at a time.
    wanted = np.tile(RECALLS, (len(recalls), 1))
    first = torch.searchsorted(torch.from_numpy(np.ascontiguousarray(recalls)), torch.from_numpy(wanted))
    return np.take_along_axis(envelope, first.numpy(), 1).mean(1)
