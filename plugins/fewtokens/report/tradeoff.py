"""The trade-off report: what each plugin saves, and what it costs in accuracy."""

import base64
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from torch import Tensor, nn

from ..measure.files import shown, write_together
from ..measure.variants import FUSED, HOST, Variant, benchmark_rows, environment_of
from ..openmmlab.metrics import HEADLINES
from ..openmmlab.test_set import Accuracy, TestSet, bootstrap_difference
from .curve import draw_curve
from .drawing import draw_prediction, draw_truth, read_image
from .pictures import draw_clusters, encode_jpeg, look
from .table import format_gmacs, format_table

FIELDS = ('macs', 'params', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'peak_mib')
PICTURES = 3


@dataclass(frozen=True)
class Comparison:
    """A SharedUpdate row against the Hourglass row nearest in cost: points of the headline metric, with an interval."""

    ours: str
    theirs: str
    macs_ratio: float
    ours_loss: float
    theirs_loss: float
    difference: float
    interval: tuple[float, float] | None


def write_tradeoff(
    model: nn.Module,
    variants: list[Variant],
    tests: TestSet,
    out: Path,
    batch: int = 4,
    rounds: int = 10,
    title: str = '',
) -> str:
    """Evaluates and times every variant, writes the report into a folder, and returns the table.

    `tradeoff.json`, `.csv`, `.png` and a self-contained `report.html`, written together or not at all.
    """
    images = list(tests.first_images(max(PICTURES, batch)))
    inputs, timed = timed_inputs(model, images, batch)
    # The size check comes first: a plugin that can't take effect is found before the evaluation, not after it.
    rows = benchmark_rows(model, variants, inputs, rounds, warmup=2)
    for row in rows:
        if row['failure']:
            raise ValueError(f'{row["name"]} cannot run: {row["failure"]}')
    accuracies = {variant.name: tests.evaluate(model, variant) for variant in variants}
    host = accuracies[HOST]
    headlines = [name for name in host.metrics if name in HEADLINES] or list(host.metrics)[:1]
    headline = headlines[0]
    for row in rows:
        accuracy, own = accuracies[row['name']], row['name'] == HOST
        row['metrics'] = accuracy.metrics
        row['differences'] = {name: accuracy.metrics[name] - host.metrics[name] for name in headlines}
        row['intervals'] = {name: None if own else bootstrap_difference(accuracy, host, name) for name in headlines}
        row['finite'] = accuracy.finite
    comparisons = compare_at_equal_cost(rows, variants, accuracies)
    kind = 'test_videos' if inputs.ndim == 5 else 'test_images'
    settings = {'checkpoint': tests.checkpoint, kind: len(tests.loader.dataset), 'rounds': rounds, 'timed': timed}
    environment = environment_of(inputs, **settings, left_out=len(tests.unreadable))
    report = dict(environment=environment, rows=rows, equal_cost=[vars(c) for c in comparisons])
    curve = draw_curve(rows, headline)
    pictures = _pictures(model, variants, tests, images[:PICTURES])
    write_together(
        {
            out / 'tradeoff.json': json.dumps(report, indent=1).encode(),
            out / 'tradeoff.csv': _as_csv(rows).encode(),
            out / 'tradeoff.png': curve,
            out / 'report.html': render(title or type(model).__name__, report, headlines, curve, pictures).encode(),
        }
    )
    return _as_text(rows, comparisons, headline)


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


def compare_at_equal_cost(
    rows: list[dict[str, Any]], variants: list[Variant], accuracies: dict[str, Accuracy]
) -> list[Comparison]:
    """Each SharedUpdate row against the Hourglass row whose MACs are nearest, where they are within a tenth."""
    headline = next(iter(rows[0]['differences']))
    kinds = {variant.name: type(variant.reducer).__name__ for variant in variants}
    theirs = [row for row in rows if kinds[row['name']] == 'Hourglass']
    found = []
    for ours in (row for row in rows if kinds[row['name']] == 'SharedUpdate'):
        near = min(theirs, key=lambda row: abs(np.log(row['macs'] / ours['macs'])), default=None)
        if near is None or abs(near['macs'] / ours['macs'] - 1) > 0.1:
            continue
        interval = bootstrap_difference(accuracies[ours['name']], accuracies[near['name']], headline)
        losses = -ours['differences'][headline], -near['differences'][headline]
        difference = losses[1] - losses[0]
        found.append(Comparison(ours['name'], near['name'], ours['macs'] / near['macs'], *losses, difference, interval))
    return found


def render(
    title: str, report: dict[str, Any], headlines: list[str], curve: bytes, pictures: list[list[tuple[str, bytes]]]
) -> str:
    """The page, with every image inside it."""
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pages.filters['shown'] = shown
    template = pages.from_string((Path(__file__).parent / 'report.html').read_text())
    rows = [[(caption, _data_uri(image, 'jpeg')) for caption, image in line] for line in pictures]
    curve_uri = _data_uri(curve, 'png')
    content = dict(title=title, headlines=headlines, curve=curve_uri, pictures=rows, format_gmacs=format_gmacs)
    return template.render(**content, **report)


def _pictures(
    model: nn.Module, variants: list[Variant], tests: TestSet, images: list[dict[str, Any]]
) -> list[list[tuple[str, bytes]]]:
    """For each image: the image, the truth, then what each variant predicts and which tokens it clustered."""
    if 'ori_shape' not in images[0]['data_samples'][0]:
        return []
    metainfo, lines = tests.loader.dataset.metainfo, []
    for image in images:
        sample = image['data_samples'][0]
        pixels = read_image(sample)
        truth = draw_truth(pixels, sample, metainfo)
        line = [('image', pixels)] + ([] if truth is None else [('ground truth', truth)])
        for variant in variants:
            if variant.name == FUSED:
                continue
            (seen,) = look(model, variant, image)
            line.append((variant.name, draw_prediction(pixels, seen.sample, metainfo)))
            if seen.clusters is not None:
                count = len(np.unique(seen.clusters))
                line.append((f'its {count} clusters', draw_clusters(pixels, seen.clusters)))
        lines.append([(caption, encode_jpeg(picture)) for caption, picture in line])
    return lines


def _as_text(rows: list[dict[str, Any]], comparisons: list[Comparison], headline: str) -> str:
    lines = [format_table(rows)]
    for c in comparisons:
        interval = '' if c.interval is None else f' (95 % interval {c.interval[0]:+.2f} to {c.interval[1]:+.2f})'
        lines.append(
            f'{c.ours} loses {c.ours_loss:.2f} points of {headline}, {c.theirs} {c.theirs_loss:.2f}, '
            f'at {c.macs_ratio:.2f} of its MACs: {c.difference:+.2f}{interval}'
        )
    lines += [f'{row["name"]}: outputs were not finite' for row in rows if not row['finite']]
    return '\n'.join(lines)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    changes = [f'{name} {what}' for name in rows[0]['differences'] for what in ('difference', 'low', 'high')]
    writer.writerow(['name', *rows[0]['metrics'], *changes, *FIELDS])
    for row in rows:
        figures = []
        for name, difference in row['differences'].items():
            figures += [difference, *(row['intervals'][name] or (None, None))]
        writer.writerow([row['name'], *row['metrics'].values(), *figures, *(row[name] for name in FIELDS)])
    return text.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
