import pytest

from fewtokens.measure.target import Target


@pytest.mark.parametrize(
    'text, target, shown',
    [
        ('2x', Target(speedup=2.0), '2x'),
        (' 1.25 X ', Target(speedup=1.25), '1.25x'),
        ('3×', Target(speedup=3.0), '3x'),
        ('cosine >= 0.98', Target(cosine=0.98), 'cosine >= 0.98'),
        ('Cosine≥.9', Target(cosine=0.9), 'cosine >= 0.9'),
    ],
)
def test_speeds_and_agreements_are_read(text, target, shown):
    assert Target.parse(text) == target and str(target) == shown


@pytest.mark.parametrize('text', ['', '2', 'x', '1x', '0.5x', '-2x', '2xx', 'fast', 'cosine', 'cosine > 0.9'])
@pytest.mark.parametrize('more', ['', ' '])
def test_what_is_neither_is_named(text, more):
    with pytest.raises(ValueError, match='must be a speed of more than 1x, such as') as error:
        Target.parse(text + more)
    assert repr(text + more) in str(error.value)


@pytest.mark.parametrize('value', ['1', '1.0', '0', '98', '1.5', 'nan'])
def test_agreements_are_below_one(value):
    with pytest.raises(ValueError, match='an agreement below 1'):
        Target.parse(f'cosine >= {value}')
