import subprocess
import sys

import pytest

from fewtokens.measure.rows import ReportRow
from fewtokens.report.curve import plot_curve


def row(name, kind, speedup, value, label=''):
    metrics = dict(metrics={'R@1': value}, differences={'R@1': value - 50}, intervals={'R@1': None})
    return ReportRow(name=name, kind=kind, label=label, macs=1, params=1, speedup=speedup, finite=True, **metrics)


@pytest.fixture
def rows():
    return [
        row('host', 'host', 1, 50),
        row('host + sdpa', 'host + sdpa', 1.1, 50),
        row('One(after=1)', 'One', 0.5, 49, '1'),
        row('One(after=2)', 'One', 0.7, 48, '2'),
        row('Another(3)', 'Another', 2, 40, '3'),
    ]


def test_the_line_is_the_hosts_even_where_a_row_is_slower(rows):
    figure = plot_curve(rows, 'R@1')
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (line,) = (line for line in axes.lines if line.get_linestyle() == ':')
        assert list(line.get_ydata()) == [50, 50]


def test_rows_of_a_kind_are_one_line_of_the_legend_and_have_their_labels(rows):
    every, near = plot_curve(rows, 'R@1').axes
    assert [text.get_text() for text in every.get_legend().texts] == ['One', 'host', 'host + sdpa', 'Another']
    assert [text.get_text() for text in near.texts] == ['1', '2']


def test_figures_elsewhere_in_the_process_stay_as_they_are():
    code = """
import matplotlib
matplotlib.use('svg')
from matplotlib import pyplot
from fewtokens.measure.rows import ReportRow
from fewtokens.report.curve import draw_curve
from fewtokens.report.training_log import draw_log
pyplot.figure()
figures = dict(metrics=dict(m=1), differences=dict(m=0), intervals=dict(m=None), finite=True)
draw_curve([ReportRow(name='host', kind='host', params=1, speedup=1, **figures)], 'm')
draw_log(dict(phase=[dict(step=1, loss=1)]), [])
assert matplotlib.get_backend() == 'svg' and pyplot.get_fignums() == [1]
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
