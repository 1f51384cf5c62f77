"""Reducers on the real backbone and made-up street scenes, as a user runs it."""

import json

import pytest
from camvid import write_camvid

SHAPE = ['--size', 84, 112, '--train-size', 56, 70, '--steps', 3]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('camvid')
    write_camvid(folder)
    return folder


def test_a_table_of_what_reducers_cost(run, data, tmp_path):
    plugin, dropped, out = 'SharedUpdate(after=4, grid=(4, 5))', 'DropTokens(4, (4, 5))', tmp_path / 'camvid.json'
    result = run('ablate_camvid.py', data, *SHAPE, '--plugin', plugin, '--plugin', dropped, '--out', out)
    assert result.returncode == 0, result.err
    assert f'| {plugin} |' in result.out and '| full |' in result.out
    full, reduced, fewest = json.loads(out.read_text()).values()
    assert fewest['cosine'] < reduced['cosine'] and fewest['macs'] == pytest.approx(reduced['macs'], abs=0.02)
    assert len(full['miou']) == 2 and full['difference'] == [0, 0] and full['macs'] == 1
    assert full['cosine'] == pytest.approx(1) and 0.5 < reduced['cosine'] < 0.9999 and reduced['macs'] < 0.9
    for miou, host, difference in zip(reduced['miou'], full['miou'], reduced['difference'], strict=True):
        assert miou - host == pytest.approx(difference)


@pytest.mark.parametrize(
    'options, message',
    [
        (['--size', 500, 672], '--size 500 672 must be multiples of 14'),
        (['--plugin', 'Shared(after=1)'], "'Shared'"),
        (['--every', 0], '0 must be at least 1'),
    ],
)
def test_wrong_options_are_one_line(run, data, options, message):
    result = run('ablate_camvid.py', data, *SHAPE, *options)
    assert result.returncode == 2 and message in result.err and 'Traceback' not in result.err
