import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from fewtokens.measure.equal_cost import Comparison
from fewtokens.measure.rows import ReportRow
from fewtokens.report.pages import as_data_url
from fewtokens.report.tradeoff import Answer, Found, Query, Report, describe_report, write_report

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
    short = [
        'host', f'<span title="{escaped}">spectral 12 x 24, means</span>',
        '<span title="&lt;b&gt;(1)">&lt;b&gt; 1</span>',
    ]  # fmt: skip
    assert re.findall(r'<tr[^>]*>\s*<td>(.*?)</td>', figures) == short and short[1] in equal_cost
    assert escaped not in re.sub(r'title="[^"]*"', '', figures + equal_cost)
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


def test_figures_can_be_copied_as_they_are_in_the_file(report, tmp_path):
    write_report(tmp_path, report, [])
    (copied,) = re.findall(r'<template>(.*?)</template>', (tmp_path / 'report.html').read_text(), re.S)
    assert html.unescape(copied) == (tmp_path / 'tradeoff.csv').read_text()
    assert copied.count('\n') == 4 and 'R@1 difference' in copied


def test_a_search_shows_what_each_row_finds(report, tmp_path):
    image = as_data_url(b'', 'jpeg')
    found = [Found('a.mp4', 0.5, False, image), Found('b.mp4', 0.25, True, image)]
    queries = [Query('a <red> bar', [Answer('host', 2, found), Answer('spectral', 17, found[:1])])]
    write_report(tmp_path, report, [], queries)
    page = (tmp_path / 'report.html').read_text().partition('What texts find')[2]
    assert '“a &lt;red&gt; bar”' in page and page.count('<img') == 3 and page.count('class="right"') == 1
    assert 'right one: 2' in page and 'right one: 17' in page and 'b.mp4, 0.250' in page


SCRIPT = """
<iframe id="frame" width="WIDTH" height="800" srcdoc="PAGE"></iframe>
<script>
document.getElementById('frame').onload = event => {
  const page = event.target.contentDocument, names = () => [...page.querySelector('table').tBodies[0].rows].map(
    row => row.cells[0].textContent.trim());
  const told = [page.documentElement.scrollWidth, names()];
  const speed = [...page.querySelectorAll('th')].find(head => head.textContent === 'speed-up');
  for (const _ of [1, 2]) { speed.click(); told.push(names()); }
  document.body.textContent = JSON.stringify(told);
};
</script>"""


@pytest.mark.parametrize('width', [400, 1400])
def test_a_page_fits_its_window_and_sorts_in_a_browser(report, tmp_path, width):
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no headless browser here; the page is parsed in the tests above')
    rows = [replace(row, speedup=speed) for row, speed in zip(report.rows, (1.5, 2.25, 0.5))]
    write_report(tmp_path, replace(report, rows=rows), [])
    content = (tmp_path / 'report.html').read_text().replace('&', '&amp;').replace('"', '&quot;')
    page = tmp_path / 'frame.html'
    page.write_text(f'<meta charset="utf-8">{SCRIPT.replace("WIDTH", str(width)).replace("PAGE", content)}')
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
    flags += [f'--user-data-dir={tmp_path / "profile"}', '--window-size=1600,900', '--virtual-time-budget=3000']
    result = subprocess.run([browser, *flags, '--dump-dom', page.as_uri()], capture_output=True, text=True, timeout=60)
    told = json.loads(html.unescape(re.search(r'<body>(.*)</body>', result.stdout, re.S)[1]))
    scroll_width, before, fastest_first, slowest_first = told
    assert scroll_width <= width
    assert before == ['host', 'spectral 12 x 24, means', '<b> 1']
    assert fastest_first == [before[1], before[0], before[2]] and slowest_first == fastest_first[::-1]


def test_a_report_without_plugins_has_no_table_of_them(report, tmp_path):
    write_report(tmp_path, Report('host', report.environment, report.rows[:1], []), [])
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<tbody>') == 1 and 'in full' not in page and 'At equal cost' not in page
