"""The trade-off report: what each plugin saves, and what it costs in accuracy."""

import base64
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from mmengine.config import Config
from torch import nn

from .accuracy import Accuracy, TestSet, bootstrap_difference
from .files import write_json, write_whole
from .pictures import draw_clusters, encode_jpeg, look, paint_labels, read_rgb
from .table import format_table
from .variants import FUSED, HALF, HOST, Variant, benchmark_rows, environment_of

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

FIELDS = ('macs', 'params', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'peak_mib')
PICTURES = 3
NEAR = 3
"""Points of the headline metric that the curve's close-up spans."""
COLOURS = {
    HOST: '#8a94a3',
    FUSED: '#3b4656',
    HALF: '#7a5195',
    'AvgPool': '#b3261e',
    'Hourglass': '#d9822b',
    'SharedUpdate': '#1769aa',
}


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
    config: Config,
    model: nn.Module,
    checkpoint: str,
    variants: list[Variant],
    out: Path,
    batch: int = 4,
    rounds: int = 10,
    title: str = '',
) -> str:
    """Evaluates and times every variant, writes the report into a folder, and returns the table.

    `tradeoff.json`, `.csv`, `.png` and a self-contained `report.html`. Evaluations that an earlier run finished with
    the same settings are taken from `evaluations` in the folder.
    """
    tests = TestSet(config, checkpoint, out, batch)
    # The size check comes first: a plugin that can't take effect is found before the evaluation, not after it.
    images = next(tests.first_batches(1))
    inputs = model.data_preprocessor(images, False)['inputs']
    rows = benchmark_rows(model, variants, inputs, rounds, warmup=2)
    accuracies = {variant.name: tests.evaluate(model, variant) for variant in variants}
    headline = next(iter(accuracies[FUSED].metrics))
    for row in rows:
        accuracy = accuracies[row['name']]
        row['metrics'] = accuracy.metrics
        row['difference'] = accuracy.metrics[headline] - accuracies[HOST].metrics[headline]
        row['interval'] = None if row['name'] == HOST else bootstrap_difference(accuracy, accuracies[HOST])
        row['finite'] = accuracy.finite
    comparisons = compare_at_equal_cost(rows, variants, accuracies)
    settings = dict(checkpoint=str(checkpoint), test_images=len(tests.loader.dataset), rounds=rounds)
    report = dict(environment=environment_of(inputs, **settings), rows=rows, equal_cost=[vars(c) for c in comparisons])
    write_json(out / 'tradeoff.json', report)
    write_whole(out / 'tradeoff.csv', lambda path: _write_csv(path, rows))
    write_whole(out / 'tradeoff.png', lambda path: draw_curve(path, rows, headline))
    pictures = _pictures(model, variants, tests, images)
    html = render(title or type(model).__name__, report, headline, out / 'tradeoff.png', pictures)
    write_whole(out / 'report.html', lambda path: path.write_text(html))
    return _as_text(rows, comparisons, headline)


def compare_at_equal_cost(
    rows: list[dict[str, Any]], variants: list[Variant], accuracies: dict[str, Accuracy]
) -> list[Comparison]:
    """Each SharedUpdate row against the Hourglass row whose MACs are nearest, where they are within a tenth."""
    kinds = {variant.name: type(variant.reducer).__name__ for variant in variants}
    theirs = [row for row in rows if kinds[row['name']] == 'Hourglass']
    found = []
    for ours in (row for row in rows if kinds[row['name']] == 'SharedUpdate'):
        near = min(theirs, key=lambda row: abs(np.log(row['macs'] / ours['macs'])), default=None)
        if near is None or abs(near['macs'] / ours['macs'] - 1) > 0.1:
            continue
        interval = bootstrap_difference(accuracies[ours['name']], accuracies[near['name']])
        losses = -ours['difference'], -near['difference']
        difference = losses[1] - losses[0]
        found.append(Comparison(ours['name'], near['name'], ours['macs'] / near['macs'], *losses, difference, interval))
    return found


def draw_curve(path: Path, rows: list[dict[str, Any]], headline: str) -> None:
    """Accuracy over speed-up, a point a row: all rows, and those near the host's accuracy closer up, with labels."""
    figure, (all_rows, close_up) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(2, 3))
    _plot(all_rows, rows, headline)
    _plot(close_up, [row for row in rows if row['difference'] > -NEAR], headline)
    for number, row in enumerate(sorted(rows, key=lambda row: row['speedup'])):
        if row['difference'] > -NEAR:
            place, offset = (row['speedup'], row['metrics'][headline]), (5, 9 if number % 2 else -16)
            close_up.annotate(_short(row['name']), place, xytext=offset, textcoords='offset points', fontsize=8)
    all_rows.set_title('all rows', fontsize=10)
    close_up.set_title(f'within {NEAR} points of the host', fontsize=10)
    all_rows.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot(axes: Any, rows: list[dict[str, Any]], headline: str) -> None:
    for kind, group in _by_kind(rows).items():
        speed, accuracy = ([row['speedup'] for row in group], [row['metrics'][headline] for row in group])
        intervals = [row['interval'] or (row['difference'],) * 2 for row in group]
        bars = [
            [max(0.0, r['difference'] - low), max(0.0, high - r['difference'])]
            for r, (low, high) in zip(group, intervals)
        ]
        axes.errorbar(
            speed, accuracy, yerr=np.array(bars).T, fmt='o', capsize=3, lw=1, label=kind, color=COLOURS.get(kind)
        )
    axes.axhline(rows[0]['metrics'][headline], color='grey', lw=0.8, ls=':')
    axes.set_xlabel(f'speed-up over {FUSED}')
    axes.set_ylabel(f'{headline}, %')
    axes.grid(alpha=0.25)
    axes.margins(x=0.16, y=0.12)


def _bar(row: dict[str, Any]) -> tuple[float, float]:
    """How far the interval reaches below and above a row."""
    low, high = row['interval'] or (row['difference'],) * 2
    return max(0.0, row['difference'] - low), max(0.0, high - row['difference'])


def render(
    title: str, report: dict[str, Any], headline: str, curve: Path, pictures: list[list[tuple[str, bytes]]]
) -> str:
    """The page, with every image inside it."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (Path(__file__).parent / 'report.html').read_text()
    )
    rows = [[(caption, _data_uri(image, 'jpeg')) for caption, image in line] for line in pictures]
    curve_uri = _data_uri(curve.read_bytes(), 'png')
    return template.render(title=title, headline=headline, curve=curve_uri, pictures=rows, **report)


def _pictures(
    model: nn.Module, variants: list[Variant], tests: TestSet, batch: dict[str, Any]
) -> list[list[tuple[str, bytes]]]:
    """For a few images: the image, the truth, then what each variant predicts and which tokens it clustered."""
    if 'gt_sem_seg' not in batch['data_samples'][0]:
        return []
    palette = np.array(tests.loader.dataset.metainfo['palette'], np.uint8)
    seen = {variant.name: look(model, variant, batch) for variant in variants if variant.name != FUSED}
    lines = []
    for i in range(min(PICTURES, len(batch['inputs']))):
        truth = batch['data_samples'][i].gt_sem_seg.data[0].numpy()
        image = read_rgb(batch['data_samples'][i].img_path, truth.shape)
        line = [('image', image), ('ground truth', paint_labels(image, truth, palette))]
        for name, results in seen.items():
            line.append((name, paint_labels(image, results[i].labels, palette)))
            if results[i].clusters is not None:
                count = len(np.unique(results[i].clusters))
                line.append((f'its {count} clusters', draw_clusters(image, results[i].clusters)))
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


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['name', *rows[0]['metrics'], 'difference', 'low', 'high', *FIELDS])
        for row in rows:
            interval = row['interval'] or (None, None)
            writer.writerow(
                [row['name'], *row['metrics'].values(), row['difference'], *interval, *(row[name] for name in FIELDS)]
            )


def _by_kind(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of one method together, slowest first."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row['speedup']):
        kinds.setdefault(row['name'].partition('(')[0], []).append(row)
    return kinds


def _short(name: str) -> str:
    """The settings of a plugin without their names, for a label in a plot."""
    settings = name.partition('(')[2].removesuffix(')')
    for long, short in (('after=', ''), ('grid=', ''), ('temperature=', 'T=')):
        settings = settings.replace(long, short)
    return settings or name


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
