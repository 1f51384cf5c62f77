import json
import re

import pytest

from fewtokens.measure.equal_cost import Comparison
from fewtokens.measure.rows import ReportRow
from fewtokens.report.tradeoff import Report, describe_report, write_report

TEXT = "SegmentClustering(segments=12, clusters=24, algorithm='spectral', aggregate='mean', sigma=0.5, after=2)"


def row(name, kind, label=''):
    times = dict.fromkeys(('ms', 'ms_p20', 'ms_p80', 'speedup', 'speedup_p20', 'speedup_p80', 'peak_mib'), 1.0)
    changed = dict(metrics={'R@1': 50.0}, differences={'R@1': -1.0}, intervals={'R@1': (-2.0, 0.5)}, finite=True)
    return ReportRow(name=name, kind=kind, label=label, macs=10**9, params=1, **times, **changed)


@pytest.fixture
def report():
    rows = [row('host', 'host'), row(TEXT, 'spectral', '12 x 24, means'), row('<b>(1)', '<b>', '1')]
    compared = [Comparison(rows[1], rows[2], 1.0, 1.0, 1.5, 0.5, (0.1, 0.9))]
    return Report('clips', dict(rounds=1, test_videos=2, timed='a video', left_out=0), rows, compared)


def test_figures_stand_beside_short_names_and_the_full_ones_below(report, tmp_path):
    write_report(tmp_path, report, [])
    page = (tmp_path / 'report.html').read_text()
    figures, full, equal_cost = re.findall(r'<tbody>.*?</tbody>', page, re.S)
    escaped = TEXT.replace("'", '&#39;')
    assert re.findall(r'<tr[^>]*>\s*<td>(.*?)</td>', figures) == ['host', 'spectral 12 x 24, means', '&lt;b&gt; 1']
    assert escaped not in figures + equal_cost and 'spectral 12 x 24, means' in equal_cost
    assert f'<tr><td>spectral 12 x 24, means</td><td class="plugin">{escaped}</td></tr>' in full
    assert full.count('<tr>') == 2 and '<b>' not in page


def test_files_of_figures_name_rows_by_their_texts(report, tmp_path):
    write_report(tmp_path, report, [])
    content = json.loads((tmp_path / 'tradeoff.json').read_text())
    assert list(content) == ['environment', 'rows', 'equal_cost']
    assert [each['name'] for each in content['rows']] == ['host', TEXT, '<b>(1)']
    assert not {'kind', 'label'} & {name for each in content['rows'] for name in each}
    (compared,) = content['equal_cost']
    assert compared == dict(
        ours=TEXT, theirs='<b>(1)', macs_ratio=1, ours_loss=1, theirs_loss=1.5, difference=0.5, interval=[0.1, 0.9]
    )
    assert f'{TEXT} loses 1.00 points of R@1, <b>(1) 1.50, at 1.00 of its MACs: +0.50' in describe_report(report)


def test_a_report_without_plugins_has_no_table_of_them(report, tmp_path):
    write_report(tmp_path, Report('host', report.environment, report.rows[:1], []), [])
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<tbody>') == 1 and 'in full' not in page and 'At equal cost' not in page
