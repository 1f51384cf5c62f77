"""What a search for settings found: its text, its picture of the frontier, and its figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from matplotlib.figure import Figure as Canvas

from ..literals import changed_options
from ..measure.bench import Figure
from ..measure.files import write_together
from ..measure.rows import Row
from ..measure.speed_search import FASTER
from ..measure.tune import Trial, Tuned
from ..measure.variants import FUSED
from ..plugin import kind_of, label_of, text_of
from ..reducers import Reducer
from .curve import COLOURS, as_png


def write_tuned(out: Path, tuned: Tuned, lines: Sequence[str], environment: dict[str, Any], params: int) -> str:
    """Writes `tune.txt`, `tune.json` and `tune.png` into a folder, together or not at all, and returns the text.

    Args:
        lines: the plugin lines.
        environment: what was measured where, for the json.
        params: of the model.
    """
    text = describe_tuned(tuned, lines, environment)
    figures = as_json(tuned, lines, environment, params)
    write_together(
        {
            out / 'tune.txt': f'{text}\n'.encode(),
            out / 'tune.json': json.dumps(figures, indent=1).encode(),
            out / 'tune.png': as_png(plot_frontier(tuned), dpi=140),
        }
    )
    return text


def python_line(reducer: Reducer, sdpa: bool) -> str:
    """What puts it on a model in Python."""
    attach = f'fewtokens.attach(model, fewtokens.{text_of(reducer)})'
    return f'fewtokens.use_sdpa(model); {attach}' if sdpa else attach


def config_lines(reducer: Reducer, sdpa: bool) -> list[str]:
    """What puts it into an OpenMMLab config."""
    options = ''.join(f', {name}={value!r}' for name, value in changed_options(reducer).items())
    fused = ' sdpa=True,' if sdpa else ''
    return [
        "custom_imports = dict(imports=['fewtokens.openmmlab'])",
        f"custom_hooks = [dict(type='FewTokensHook',{fused} reducer=dict(type='{type(reducer).__name__}'{options}))]",
    ]


def describe_tuned(tuned: Tuned, lines: Sequence[str], environment: dict[str, Any]) -> str:
    """The choice, its plugin lines, and how sure it is."""
    chosen, speed = tuned.chosen, cast(Figure, tuned.chosen.speed)  # it was timed
    searched, held_out = tuned.pictures
    full, reduced = tuned.milliseconds
    told = [
        f'{tuned.target}: {chosen.name}',
        '',
        *(f'    {line}' for line in lines),
        '',
        f'speed-up {_figure(speed, ".2f", "x")}, {speed.count} pairs in turn with {FUSED}: {full:.0f} ms became '
        f'{reduced:.0f}',
        _machine(environment),
        f'cosine {_figure(chosen.agreement, ".4f")}, {_pictures(searched)} of the search',
    ]
    told += [_confirmation(tuned, held_out), *_comparison(tuned)]
    if tuned.target.speedup and chosen.speedup > (1 + FASTER) * tuned.target.speedup:
        told.append(f'no grid comes nearer to {tuned.target} without being slower')
    if tuned.target.speedup and speed.low < tuned.target.speedup:
        told.append(f'the interval reaches below {tuned.target}: on a quieter machine it would be narrower')
    if chosen.unchanged:
        told.append(f'{_pictures(chosen.unchanged)} had too few tokens for it, went through unchanged and do not count')
    return '\n'.join(told)


def _machine(environment: dict[str, Any]) -> str:
    """What time was measured on."""
    size = ' x '.join(map(str, environment['shape']))
    threads, batch = environment['threads'], environment['batch']
    return (
        f'    on {environment["device"]}, {threads} thread{"" if threads == 1 else "s"}, {environment["dtype"]}, '
        f'{batch} at a time of {size}'
    )


def _confirmation(tuned: Tuned, held_out: int) -> str:
    if tuned.held_out is None:
        return 'no pictures were held out to confirm it: more of them would say how sure it is'
    seen = f'cosine {_figure(tuned.held_out, ".4f")}, {_pictures(held_out)} held out, which the search has not seen'
    if tuned.confirmed:
        return f'{seen}: confirmed'
    what = 'what was asked for' if tuned.target.cosine else 'in the search'
    return f'{seen}: NOT confirmed, it is less than {what}; more pictures would make a better choice'


def _comparison(tuned: Tuned) -> list[str]:
    """How far ahead of the runner-up it is."""
    other = tuned.runner_up
    if other is None:
        return []
    told = f'next best: {other.name}, {other.speedup:.2f}x, cosine {other.agreement.value:.4f}'
    if tuned.lead is None:
        return [told]
    sure = 'ahead' if tuned.lead.low > 0 else 'behind' if tuned.lead.high < 0 else 'as good as equal'
    where = 'over the pictures held out' if tuned.held_out else 'over the same pictures'
    return [told, f'    the choice has {_figure(tuned.lead, "+.4f")} more {where}: {sure}']


def _figure(figure: Figure, form: str, unit: str = '') -> str:
    if figure.count < 2:
        return f'{figure.value:{form}}{unit} (of one alone: no interval)'
    low, high = format(figure.low, form), format(figure.high, form)
    return f'{figure.value:{form}}{unit} (95 % interval {low} to {high})'


def _pictures(count: int) -> str:
    return f'{count} picture{"" if count == 1 else "s"}'


def as_json(tuned: Tuned, lines: Sequence[str], environment: dict[str, Any], params: int) -> dict[str, Any]:
    """Rows as every tool writes them, cosines in percent, the chosen one first of those with a reducer."""
    others = sorted((t for t in tuned.trials if t != tuned.chosen), key=lambda trial: trial.speedup)
    searched, held_out = tuned.pictures
    full, reduced = tuned.milliseconds
    host = Row(name=FUSED, kind=FUSED, params=params, ms=full, speedup=1.0, metrics=dict(cosine=100.0))
    choice = {
        'plugin': tuned.chosen.name,
        'lines': list(lines),
        'milliseconds': reduced,
        'speedup': vars(tuned.chosen.speed),
        'cosine': vars(tuned.chosen.agreement),
        'cosine_held_out': None if tuned.held_out is None else vars(tuned.held_out),
        'confirmed': tuned.confirmed,
        'runner_up': None if tuned.runner_up is None else tuned.runner_up.name,
        'lead': None if tuned.lead is None else vars(tuned.lead),
    }
    return dict(
        environment=dict(environment, target=str(tuned.target), pictures=searched, pictures_held_out=held_out),
        chosen=choice,
        rows=[host.as_json(), *(_row(trial, params) for trial in (tuned.chosen, *others))],
    )


def _row(trial: Trial, params: int) -> dict[str, Any]:
    """With what else is known of a trial: speed-ups that were not timed are expected ones."""
    row = Row(
        name=trial.name,
        kind=kind_of(trial.reducer),
        label=label_of(trial.reducer),
        params=params,
        speedup=trial.speedup if trial.speed else None,
        metrics=dict(cosine=100 * trial.agreement.value),
    )
    more = dict(speedup_expected=trial.speedup, macs_share=trial.macs, pictures=trial.agreement.count)
    return row.as_json() | more


def plot_frontier(tuned: Tuned) -> Canvas:
    """Cosine over speed-up: settings that were tried on enough pictures, the best of them joined, the choice marked."""
    figure = Canvas(figsize=(9, 5.6))
    axes = figure.subplots()
    most = max(trial.agreement.count for trial in tuned.trials)
    enough = [trial for trial in tuned.trials if trial.agreement.count >= min(most, 8)]
    for kind in dict.fromkeys(kind_of(trial.reducer) for trial in enough):
        for timed in (False, True):
            group = [t for t in enough if kind_of(t.reducer) == kind and (t.speed is not None) == timed]
            if group:
                colour = COLOURS.get(kind)
                axes.scatter(
                    [trial.speedup for trial in group],
                    [trial.agreement.value for trial in group],
                    s=26,
                    facecolors=colour if timed else 'none',
                    edgecolors=colour,
                    label=f'{kind}, {"timed" if timed else "time expected"}',
                )
    best = frontier(enough)
    axes.plot([t.speedup for t in best], [t.agreement.value for t in best], color='#8a94a3', lw=1, zorder=0)
    _mark_choice(axes, tuned)
    # What is far below the choice is of no use, and would press the rest together.
    least = max(min(t.agreement.value for t in enough), 1 - 3 * (1 - tuned.chosen.agreement.low))
    axes.set_ylim(least - 0.03 * (1 - least), 1)
    axes.set_xlabel(f'speed-up over {FUSED}')
    axes.set_ylabel('cosine with the full model, mean over tokens and pictures')
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, loc='lower left')
    return figure


def _mark_choice(axes: Any, tuned: Tuned) -> None:
    chosen, speed = tuned.chosen, cast(Figure, tuned.chosen.speed)  # it was timed
    mean = chosen.agreement
    axes.errorbar(
        [speed.value],
        [mean.value],
        xerr=[[speed.value - speed.low], [speed.high - speed.value]],
        yerr=[[mean.value - mean.low], [mean.high - mean.value]],
        fmt='*',
        ms=15,
        capsize=3,
        color='#b3261e',
        label='chosen, with 95 % intervals',
        zorder=3,
    )
    if tuned.target.speedup:
        axes.axvline(tuned.target.speedup, color='#b3261e', lw=0.8, ls=':')
    else:
        axes.axhline(tuned.target.cosine, color='#b3261e', lw=0.8, ls=':')
    axes.set_title(f'{tuned.target}: {chosen.name}', fontsize=10, wrap=True)


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Those than which none is faster and agrees as well, from slow to fast."""
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda t: -t.speedup):
        if not best or trial.agreement.value > best[-1].agreement.value:
            best.append(trial)
    return best[::-1]
