from dataclasses import dataclass

import pytest

import fewtokens
from fewtokens.openmmlab.registry import REDUCERS, as_text, build_reducer, parse_plugin
from fewtokens.video.segments import SegmentClustering


@pytest.mark.parametrize(
    'text, expected',
    [
        ('Hourglass(after=10, grid=(28, 28))', fewtokens.Hourglass(10, 28)),
        (' Hourglass(10, 28, temperature=2.5) ', fewtokens.Hourglass(10, 28, temperature=2.5)),
        ('SharedUpdate(after=(2, 6), grid=[16, (8, 4)])', fewtokens.SharedUpdate((2, 6), (16, (8, 4)))),
        ('BipartiteMerge((1, 2), 4)', fewtokens.BipartiteMerge((1, 2), 4)),
    ],
)
def test_reads_like_the_call(text, expected):
    assert parse_plugin(text) == expected
    assert parse_plugin(repr(expected)) == expected


@pytest.mark.parametrize(
    'text, message',
    [
        ('Hourglas(after=1, grid=2)', "no reducer 'Hourglas'; there are AvgPool, BipartiteMerge, .*Hourglass, .*ToMe"),
        ('Hourglass(after=1)', 'needs grid'),
        ('Hourglass(after=1, grid=2, size=3)', "no option 'size'; its options are after, grid, until"),
        ('Hourglass(after=1, grid=int("2"))', 'literal'),
        ('Hourglass(**{"after": 1})', 'literal'),
        ('Hourglass', 'literal'),
        ('', 'literal'),
        ('Hourglass(after=1, grid=0)', 'grid=0'),
        ('Hourglass(after=-1, grid=2)', 'after=-1'),
        ('Hourglass(after=1, grid=2, until="end")', "until='end' must be one of"),
        ('SharedUpdate(after=(1, 2), grid=3)', 'equally long'),
        ('SharedUpdate(after=(2, 1), grid=(4, 3))', 'must increase'),
        ('SharedUpdate(after=(1, 2), grid=(3, 4))', 'finer'),
        ('BipartiteMerge(after=1, tokens=0)', 'tokens=0'),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_plugin(text)


def test_from_a_config():
    assert build_reducer(dict(type='AvgPool', after=1, grid=2)) == fewtokens.AvgPool(1, 2)
    assert build_reducer(dict(type=fewtokens.AvgPool, after=1, grid=2)) == fewtokens.AvgPool(1, 2)
    assert build_reducer(fewtokens.AvgPool(1, 2)) == fewtokens.AvgPool(1, 2)
    # As MMEngine writes what it has read: by the module, and with the scope of another package's config.
    named = dict(type='fewtokens.reducers.avg_pool.AvgPool', after=1, grid=2, _scope_='mmseg')
    assert build_reducer(named) == fewtokens.AvgPool(1, 2) and as_text(named) == 'AvgPool(after=1, grid=2)'
    clustering = dict(segments=2, clusters=5, after=1)
    for kind in ('SegmentClustering', SegmentClustering, 'fewtokens.video.segments.SegmentClustering'):
        assert str(build_reducer(dict(clustering, type=kind))) == 'SegmentClustering(segments=2, clusters=5, after=1)'


@pytest.mark.parametrize(
    'setting, message',
    [
        ({}, r'reducer=\{\} must be a dict with a type'),
        (dict(after=1, grid=2), 'must be a dict with a type'),
        (5, 'reducer=5 must be'),
        (['AvgPool(1, 2)'], 'must be a dict with a type'),
        (dict(type=None), 'no reducer None'),
        (dict(type=5), 'no reducer 5'),
        (dict(type='os.system', command='true'), "no reducer 'os.system'"),
        (dict(type=dict), 'no reducer'),
        ('os(1)', "no reducer 'os'"),
        (dict(type='AvgPool', aftr=1, grid=2), "no option 'aftr'"),
        (dict(type='Hourglass', after=1, grid=2, temperature='warm'), 'Hourglass has an option of the wrong type'),
    ],
)
def test_what_is_no_reducer_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        build_reducer(setting)


def test_a_method_of_ones_own():
    @REDUCERS.register_module()
    @dataclass(frozen=True)
    class Mine(fewtokens.Reducer):
        strength: float = 1.0

    try:
        assert parse_plugin('Mine(3, strength=2.0)') == Mine(3, 2.0)
    finally:
        REDUCERS.module_dict.pop('Mine')
