"""What each part is worth, as a user asks for a part of it; and the tables in the documentation."""

import json
from pathlib import Path

import cv2

from demo.ablate import as_markdown, ask
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.report.photographs import bundled_photographs

DOCS = Path(__file__).parents[2] / 'docs'


def test_answers_go_on_where_they_were_interrupted(run, tmp_path, monkeypatch):
    few = dict(list(bundled_photographs(224).items())[:2])
    monkeypatch.setattr('demo.ablate.bundled_photographs', lambda size: few)
    args = ['--size', 224, '--scenes', 2, '--question', 'or their squares', '--out', tmp_path]
    first = run('ablate.py', *args)
    assert first.returncode == 0 and 'evaluating Hourglass' in first.err, first.err
    assert 'drawing validation scenes' in first.err
    content = json.loads((tmp_path / 'ablations.json').read_text())
    for model, grid in zip(content['models'], (10, 18)):
        (question,) = model['questions']
        default, squares = question['rows']
        assert default['name'] == f'Hourglass(after=3, grid={grid})' and default['macs'] == squares['macs'] < 0.6
        assert default['difference'] == 0 and squares['interval'][0] <= squares['difference'] <= squares['interval'][1]
        assert squares['name'] in first.out and cv2.imread(str(tmp_path / f'ablations-{model["name"]}.png')) is not None
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<img') == 2 and page.count('<table') == 2
    again = run('ablate.py', *args)
    assert 'evaluated in an earlier run' in again.err and 'drawing' not in again.err
    assert json.loads((tmp_path / 'ablations.json').read_text())['models'] == content['models']


def test_a_question_that_nobody_asks(fails, tmp_path):
    message = "--question 'windows' is in no title; they are: Hourglass: pooling instead of clustering; "
    fails('ablate.py', '--question', 'windows', '--out', tmp_path / 'out', message=message)
    assert not (tmp_path / 'out').exists()


def test_rows_of_a_question_are_plugins_that_differ():
    for texts in ask(3, 24, [(3, 32), (6, 30)], (0.1, 50.0)).values():
        assert len({parse_plugin(text) for text in texts}) == len(texts) > 1


def test_the_page_has_the_tables_that_were_measured():
    content = json.loads((DOCS / 'figures/ablations.json').read_text())
    page = (DOCS / 'ablations.md').read_text()
    tables = [line for line in as_markdown(content['models']).splitlines() if line.startswith('|')]
    assert len(tables) > 60 and [line for line in tables if line not in page] == []
