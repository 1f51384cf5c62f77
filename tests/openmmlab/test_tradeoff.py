import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

import fewtokens
from fewtokens.measure.variants import HALF, Variant, make_variants
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.predict import look
from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.openmmlab.test_set import TestSet
from fewtokens.openmmlab.tradeoff import timed_inputs, write_tradeoff

PLUGINS = ['Hourglass(after=2, grid=4)', 'SharedUpdate(after=2, grid=4)', 'AvgPool(after=2, grid=4)']


@pytest.fixture
def report(config_file, checkpoint, tmp_path):
    config = load_config(config_file)
    variants = make_variants({text: parse_plugin(text) for text in PLUGINS}, half=True)
    out = tmp_path / 'report'
    tests = TestSet(config, str(checkpoint), out, 2)
    text = write_tradeoff(build_model(config, checkpoint), variants, tests, out, 2, 2, 'Tiny')
    return out, text


class Images(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found, self.scripts = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == 'link' or (tag == 'script' and 'src' in dict(attributes))
        if tag == 'img':
            self.found.append(dict(attributes)['src'])


def test_report_has_every_row_and_needs_nothing_from_outside(report):
    out, text = report
    names = ['host', 'host + sdpa', *PLUGINS, HALF]
    content = json.loads((out / 'tradeoff.json').read_text())
    assert [row['name'] for row in content['rows']] == names
    assert all(next(iter(row['metrics'])) == 'mIoU' for row in content['rows'])
    measured = ['ms', 'ms_p20', 'ms_p80', 'speedup', 'speedup_p20', 'speedup_p80', 'peak_mib']
    figures = ['name', 'macs', 'params', *measured, 'failure', 'metrics', 'differences', 'intervals', 'finite']
    assert all(list(row) == figures for row in content['rows'])
    assert content['environment']['test_images'] == 3 and content['environment']['threads'] >= 1
    with open(out / 'tradeoff.csv', newline='') as file:
        assert [row['name'] for row in csv.DictReader(file)] == names
    assert cv2.imread(str(out / 'tradeoff.png')) is not None
    page = (out / 'report.html').read_text()
    images = Images(page)
    assert all(f'>{name}</td>' in re.sub(r'\s+', ' ', page).replace(' </td>', '</td>') for name in names)
    # Short names beside the figures, the full ones where they are pointed at, and below.
    for short, name in zip(('Hourglass 2, 4', 'SharedUpdate 2, 4', 'AvgPool 2, 4'), PLUGINS):
        assert f'<td><span title="{name}">{short}</span></td>' in page and f'<td>{short}</td>' in page
    assert 'What texts find' not in page
    assert all(name in text for name in names) and not images.scripts and 'http' not in page
    # The curve; for three images the image, the truth, host, half resolution, three predictions and cluster maps.
    assert len(images.found) == 1 + 3 * (4 + 6)
    for source in images.found:
        pixels = np.frombuffer(base64.b64decode(source.partition('base64,')[2]), np.uint8)
        assert cv2.imdecode(pixels, cv2.IMREAD_COLOR).shape[0] >= 512


def test_report_renders_in_a_browser(report, tmp_path):
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no headless browser here; the page is parsed in the test above')
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
    flags += ['--disable-component-update', '--disable-sync', f'--user-data-dir={tmp_path / "profile"}']
    picture = tmp_path / 'page.png'
    flags += ['--window-size=1200,2400', f'--screenshot={picture}', (report[0] / 'report.html').as_uri()]
    subprocess.run([browser, *flags], check=True, capture_output=True, timeout=60)
    page = cv2.imread(str(picture))
    assert page.shape[:2] == (2400, 1200) and (page < 250).mean() > 0.05


def test_interrupted_report_leaves_the_old_one(report, config_file, checkpoint, monkeypatch):
    out, _ = report
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    config = load_config(config_file)
    monkeypatch.setattr('fewtokens.report.tradeoff.render', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        tests = TestSet(config, str(checkpoint), out, 2)
        write_tradeoff(build_model(config, checkpoint), make_variants({}), tests, out, 2, 1)
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before


def test_sliding_windows_are_timed_on_one_window_and_draw_no_clusters(config_file, checkpoint, tmp_path):
    options = {'model.test_cfg': dict(mode='slide', crop_size=(48, 64), stride=(16, 64))}
    config = load_config(config_file, options)
    model = build_model(config, checkpoint)
    (image,) = TestSet(config, str(checkpoint), tmp_path, 3).first_images(1)
    inputs, shown = timed_inputs(model, [image], 2)
    assert inputs.shape == (2, 3, 48, 64) and 'window' in shown
    (seen,) = look(model, Variant('row', fewtokens.SharedUpdate(2, (2, 4))), image)
    assert seen.clusters is None and seen.sample.pred_sem_seg.shape == (64, 64)
