import pytest

import fewtokens
from fewtokens.measure.accuracy import Accuracy
from fewtokens.measure.equal_cost import choose_pairs, compare_at_equal_cost
from fewtokens.measure.rows import ReportRow
from fewtokens.measure.variants import make_variants

PLUGINS = {
    'a': fewtokens.Hourglass(2, 4),
    'b': fewtokens.AvgPool(2, 4),
    'c': fewtokens.Hourglass(3, 4),
    'd': fewtokens.SharedUpdate(2, 4),
}


def row(name, kind, macs, loss):
    changed = dict(metrics=dict(mIoU=50 - loss), differences=dict(mIoU=-loss), intervals=dict(mIoU=None))
    return ReportRow(name=name, kind=kind, macs=macs, params=1, finite=True, **changed)


ROWS = [row('host', 'host', 200, 0), row('a', 'Hourglass', 100, 3), row('b', 'Hourglass', 80, 5)]
ROWS += [row('c', 'Mine', 104, 2), row('d', 'Mine', 60, 4), row('e', 'Mine', 73, 6)]
ACCURACIES = {each.name: Accuracy(each.metrics) for each in ROWS}


def test_by_default_each_plugin_is_compared_with_those_before_it():
    variants = make_variants(PLUGINS, half=True)
    assert choose_pairs(variants) == [
        ('AvgPool', 'Hourglass'), ('SharedUpdate', 'Hourglass'), ('SharedUpdate', 'AvgPool')
    ]  # fmt: skip
    assert choose_pairs(make_variants({})) == []


def test_what_is_compared_can_be_chosen():
    variants = make_variants(PLUGINS, half=True)
    asked = [['Hourglass', 'SharedUpdate'], ['AvgPool', 'half resolution']]
    assert choose_pairs(variants, asked) == [tuple(pair) for pair in asked]
    message = "no row of 'Hourglas' to compare at equal cost; there are host, host \\+ sdpa, Hourglass, AvgPool"
    with pytest.raises(ValueError, match=message):
        choose_pairs(variants, [['SharedUpdate', 'Hourglas']])


def test_rows_are_compared_with_the_nearest_within_a_tenth():
    found = [comparison.as_json() for comparison in compare_at_equal_cost(ROWS, [('Mine', 'Hourglass')], ACCURACIES)]
    assert found == [
        dict(ours='c', theirs='a', macs_ratio=1.04, ours_loss=2, theirs_loss=3, difference=1, interval=None),
        dict(ours='e', theirs='b', macs_ratio=73 / 80, ours_loss=6, theirs_loss=5, difference=-1, interval=None),
    ]


def test_rows_of_one_kind_are_compared_with_each_other():
    rows = [*ROWS, row('f', 'Hourglass', 101, 1)]
    accuracies = {**ACCURACIES, 'f': Accuracy({})}
    found = compare_at_equal_cost(rows, [('Hourglass', 'Hourglass')], accuracies)
    assert [(each.ours.name, each.theirs.name) for each in found] == [('a', 'f'), ('f', 'a')]
