"""The real model on photographs, as a user runs it."""

import json

import cv2
import numpy as np
import pytest


def test_a_report_with_ones_own_photographs_first(run, tmp_path):
    own, out = tmp_path / 'own', tmp_path / 'out'
    own.mkdir()
    cv2.imwrite(str(own / '<me>.jpg'), np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8))
    plugin = 'SharedUpdate(after=6, grid=8)'
    options = ['--size', 224, '--plugin', plugin, '--rounds', 1, '--pictures', own, '--out', out]
    result = run('compare_photographs.py', *options)
    assert result.returncode == 0 and 'map IoU' in result.out, result.err
    assert sorted(file.name for file in out.iterdir()) == ['real.json', 'real.png', 'report.html']
    figures = json.loads((out / 'real.json').read_text())
    full, reduced = figures['rows']
    assert figures['environment']['pictures'] == 8 and figures['environment']['shape'] == [224, 224]
    assert full['metrics'] == {'cosine': 100, 'map difference': 0, 'map IoU': 100} and full['speedup'] == 1
    assert 50 < reduced['metrics']['cosine'] < 100 and reduced['name'] == plugin
    assert reduced['macs'] < 0.75 * full['macs'] and reduced['ms'] > 0
    page = (out / 'report.html').read_text()
    assert (
        page.index('&lt;me&gt;.jpg') < page.index('astronaut') and page.count('<img src="data:image/jpeg') == 8 * 3 * 2
    )
    assert cv2.imread(str(out / 'real.png')).shape == (8 * 3 * 112, 2 * 112, 3)


@pytest.mark.parametrize(
    'options, message',
    [
        (['--size', 500], '500 must be a multiple of 14, such as 504'),
        (['--size', 210], '210 must be at least 224'),
        (['--plugin', 'Shared(after=1)'], "'Shared'"),
        (['--size', 224, '--plugin', 'AvgPool(after=2, grid=30)'], '224 x 224 have too few tokens'),
        (['--size', 224, '--plugin', 'AvgPool(after=12, grid=3)'], 'after=12 must be between 0 and 11'),
        (['--pictures', 'none'], "there is no folder 'none'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(fails, tmp_path, options, message):
    out = tmp_path / 'out'
    fails('compare_photographs.py', *options, '--out', out, '--rounds', 1, message=message)
    assert not out.exists()
