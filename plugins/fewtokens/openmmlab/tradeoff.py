"""Runs what the trade-off report shows: what each plugin saves, and what it costs in accuracy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..measure.accuracy import Accuracy, bootstrap_difference
from ..measure.equal_cost import choose_pairs, compare_at_equal_cost
from ..measure.rows import ReportRow, Row
from ..measure.variants import FUSED, HOST, Variant, benchmark_rows, environment_of
from ..report.drawing import draw_prediction, draw_truth, read_image, with_depth_bounds
from ..report.pictures import draw_clusters, encode_jpeg
from ..report.tradeoff import Report, describe_report, write_report
from .metrics import HEADLINES
from .predict import look
from .queries import found_by_rows
from .test_set import TestSet

PICTURES = 3


def write_tradeoff(
    model: nn.Module,
    variants: list[Variant],
    tests: TestSet,
    out: Path,
    batch: int = 4,
    rounds: int = 10,
    title: str = '',
    pairs: Sequence[tuple[str, str]] | None = None,
) -> str:
    """Evaluates and times every variant, writes the report into a folder, and returns the table.

    `tradeoff.json`, `.csv`, `.png` and a self-contained `report.html`, written together or not at all.

    Args:
        pairs: kinds of rows to compare at equal cost; None for `choose_pairs`'s own.
    """
    images = list(tests.first_images(max(PICTURES, batch)))
    inputs, timed = timed_inputs(model, images, batch)
    # The size check comes first: a plugin that can't take effect is found before the evaluation, not after it.
    measured = benchmark_rows(model, variants, inputs, rounds, warmup=2)
    for row in measured:
        if row.failure:
            raise ValueError(f'{row.name} cannot run: {row.failure}')
    accuracies = {variant.name: tests.evaluate(model, variant) for variant in variants}
    host = accuracies[HOST]
    headlines = [name for name in host.metrics if name in HEADLINES] or list(host.metrics)[:1]
    rows = [_report_row(row, accuracies[row.name], host, headlines) for row in measured]
    comparisons = compare_at_equal_cost(rows, choose_pairs(variants) if pairs is None else pairs, accuracies)
    kind = 'test_videos' if inputs.ndim == 5 else 'test_images'
    settings = {'checkpoint': tests.checkpoint, kind: len(tests.loader.dataset), 'rounds': rounds, 'timed': timed}
    environment = environment_of(inputs, **settings, left_out=len(tests.unreadable))
    report = Report(title or type(model).__name__, environment, rows, comparisons)
    pictures = _pictures(model, variants, tests, images[:PICTURES])
    # The host and the fused host find the same.
    names = {row.name: row.short_name for row in rows if row.name != FUSED}
    queries = found_by_rows(tests.loader.dataset, accuracies, names)
    write_report(out, report, pictures, queries)
    return describe_report(report)


def _report_row(row: Row, accuracy: Accuracy, host: Accuracy, headlines: list[str]) -> ReportRow:
    own = row.name == HOST
    return ReportRow(
        **{**vars(row), 'metrics': accuracy.metrics},
        differences={name: accuracy.metrics[name] - host.metrics[name] for name in headlines},
        intervals={name: None if own else bootstrap_difference(accuracy, host, name) for name in headlines},
        finite=accuracy.finite,
    )


def timed_inputs(model: nn.Module, images: list[dict[str, Any]], batch: int) -> tuple[Tensor, str]:
    """What the timing runs on, and what to call it: the first image, as often as a batch has images.

    A model that slides a window over its images is timed on one window, for that is what its network sees. Videos are
    as many as a batch has, for clustering takes its time by what is in them.
    """
    inputs = model.data_preprocessor(images[0], False)['inputs']
    if inputs.ndim == 5:
        videos = [model.data_preprocessor(image, False)['inputs'] for image in images]
        alike = [video for video in videos if video.shape == inputs.shape]
        return torch.cat((alike * batch)[:batch]), f'{min(len(alike), batch)} videos of {inputs.shape[1]} frames'
    test_cfg = getattr(model, 'test_cfg', None) or {}
    what = 'a whole image'
    if test_cfg.get('mode') == 'slide':
        height, width = test_cfg['crop_size']
        inputs, what = inputs[..., :height, :width], 'one window of the sliding inference'
    return inputs.expand(batch, -1, -1, -1).contiguous(), what


def _pictures(
    model: nn.Module, variants: list[Variant], tests: TestSet, images: list[dict[str, Any]]
) -> list[list[tuple[str, bytes]]]:
    """For each image: the image, the truth, then what each variant predicts and which tokens it clustered."""
    if 'ori_shape' not in images[0]['data_samples'][0]:
        return []
    lines = []
    for image in images:
        sample = image['data_samples'][0]
        pixels, metainfo = read_image(sample), with_depth_bounds(tests.loader.dataset.metainfo, sample)
        truth = draw_truth(pixels, sample, metainfo)
        line = [('image', pixels)] + ([] if truth is None else [('ground truth', truth)])
        for variant in variants:
            if variant.name == FUSED:
                continue
            (seen,) = look(model, variant, image)
            metainfo = with_depth_bounds(metainfo, seen.sample)
            line.append((variant.name, draw_prediction(pixels, seen.sample, metainfo)))
            if seen.clusters is not None:
                count = len(np.unique(seen.clusters))
                line.append((f'its {count} clusters', draw_clusters(pixels, seen.clusters)))
        lines.append([(caption, encode_jpeg(picture)) for caption, picture in line])
    return lines
