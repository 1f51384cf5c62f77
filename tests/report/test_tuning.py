import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

import fewtokens
from fewtokens.measure.bench import Figure
from fewtokens.measure.target import Target
from fewtokens.measure.tune import Trial, Tuned
from fewtokens.report.tuning import config_lines, describe_tuned, frontier, plot_frontier, python_line, write_tuned

STAGES = fewtokens.SharedUpdate(after=(3, 6), grid=(20, 14), size_bias=False)
ENVIRONMENT = dict(device='A CPU', threads=1, dtype='float32', batch=1, shape=[64, 96])


def trial(reducer, speed, cosine, timed=True, count=8):
    figure = Figure(speed, speed - 0.03, speed + 0.03, 20) if timed else None
    return Trial(reducer, 0.5, speed, figure, Figure(cosine, cosine - 0.002, cosine + 0.002, count))


@pytest.fixture
def tuned():
    chosen, second = trial(STAGES, 2.02, 0.981), trial(fewtokens.Hourglass(4, 12), 2.01, 0.975)
    fast, poor = trial(fewtokens.SharedUpdate(1, 9), 3.0, 0.93, timed=False), trial(fewtokens.Hourglass(2, 9), 2.5, 0.9)
    return Tuned(
        target=Target(speedup=2.0),
        chosen=chosen,
        trials=[second, chosen, fast, poor, trial(fewtokens.SharedUpdate(1, 20), 1.5, 0.5, count=2)],
        runner_up=second,
        held_out=Figure(0.98, 0.977, 0.983, 4),
        lead=Figure(0.006, 0.004, 0.008, 4),
        pictures=(8, 4),
        milliseconds=(200.0, 99.0),
        kept=0,
    )


def test_plugin_lines_put_the_choice_on():
    line = python_line(STAGES, sdpa=False)
    assert line == 'fewtokens.attach(model, fewtokens.' + (
        'SharedUpdate(after=(3, 6), grid=((20, 20), (14, 14)), size_bias=False))'
    )
    assert python_line(STAGES, sdpa=True) == f'fewtokens.use_sdpa(model); {line}'
    settings = {}
    exec('\n'.join(config_lines(STAGES, sdpa=True)), settings)
    assert settings['custom_imports'] == dict(imports=['fewtokens.openmmlab'])
    (hook,) = settings['custom_hooks']
    from fewtokens.openmmlab.hook import FewTokensHook

    assert hook.pop('type') == 'FewTokensHook'
    built = FewTokensHook(**hook)
    assert built.sdpa and built.reducer == STAGES


def test_the_text_says_what_was_found_and_how_sure_it_is(tuned):
    lines = describe_tuned(tuned, ['the line'], ENVIRONMENT).splitlines()
    assert lines[0] == f'2x: {tuned.chosen.name}' and '    the line' in lines
    assert 'speed-up 2.02x (95 % interval 1.99 to 2.05), 20 pairs in turn with host + sdpa: 200 ms became 99' in lines
    assert '    on A CPU, 1 thread, float32, 1 at a time of 64 x 96' in lines
    assert 'cosine 0.9810 (95 % interval 0.9790 to 0.9830), 8 pictures of the search' in lines
    assert any(line.endswith('4 pictures held out, which the search has not seen: confirmed') for line in lines)
    assert 'next best: Hourglass(after=4, grid=(12, 12)), 2.01x, cosine 0.9750' in lines
    assert any('+0.0060 (95 % interval +0.0040 to +0.0080) more over the pictures held out: ahead' in x for x in lines)
    assert any('the interval reaches below 2x' in line for line in lines)


def test_what_is_not_sure_is_said(tuned):
    def text(**changes):
        return describe_tuned(replace(tuned, **changes), [], ENVIRONMENT)

    assert 'NOT confirmed, it is less than in the search' in text(held_out=Figure(0.96, 0.95, 0.97, 4))
    asked = text(target=Target(cosine=0.98), held_out=Figure(0.979, 0.97, 0.99, 4), lead=None)
    assert 'NOT confirmed, it is less than what was asked for' in asked and 'more over' not in asked
    assert 'no pictures were held out' in text(held_out=None)
    assert 'as good as equal' in text(lead=Figure(0.001, -0.001, 0.002, 4))
    assert ': behind' in text(lead=Figure(-0.002, -0.003, -0.001, 4))
    assert 'no grid comes nearer' in text(chosen=trial(STAGES, 2.2, 0.98))
    assert '1 picture had too few tokens' in text(chosen=replace(tuned.chosen, unchanged=1))
    one = replace(tuned.chosen, agreement=Figure(0.98, 0.98, 0.98, 1))
    assert 'cosine 0.9800 (of one alone: no interval)' in text(chosen=one, pictures=(1, 0))


def test_the_frontier_is_of_those_that_none_beats(tuned):
    assert [each.speedup for each in frontier(tuned.trials[:4])] == [2.02, 3.0]


def test_the_picture_shows_what_was_compared_on_enough_pictures_and_marks_the_choice(tuned):
    (axes,) = plot_frontier(tuned).axes
    names = {text.get_text() for text in axes.get_legend().texts}
    assert names >= {'SharedUpdate, timed', 'SharedUpdate, time expected', 'Hourglass, timed'}
    assert 'chosen, with 95 % intervals' in names and axes.get_title() == f'2x: {tuned.chosen.name}'
    shown = np.concatenate([points.get_offsets() for points in axes.collections if len(points.get_offsets())])
    assert 0.5 not in shown[:, 1] and [2.02, 0.981] in shown.tolist()


def test_files_are_written_together(tuned, tmp_path):
    text = write_tuned(tmp_path / 'out', tuned, ['the line'], ENVIRONMENT, params=7)
    out = tmp_path / 'out'
    assert sorted(path.name for path in out.iterdir()) == ['tune.json', 'tune.png', 'tune.txt']
    assert (out / 'tune.txt').read_text() == f'{text}\n' and cv2.imread(str(out / 'tune.png')).shape[2] == 3
    written = json.loads((out / 'tune.json').read_text())
    assert written['environment'] == ENVIRONMENT | dict(target='2x', pictures=8, pictures_held_out=4)
    assert written['chosen']['plugin'] == tuned.chosen.name and written['chosen']['confirmed'] is True
    host, first, *others = written['rows']
    assert (host['name'], first['name'], len(others)) == ('host + sdpa', tuned.chosen.name, 4)
    assert first['metrics'] == dict(cosine=98.1) and (first['speedup'], first['params']) == (2.02, 7)
    assert [row['speedup'] for row in others if row['name'] == 'SharedUpdate(after=1, grid=(9, 9))'] == [None]
