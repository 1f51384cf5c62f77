import pytest

from fewtokens.report import curve


@pytest.mark.parametrize(
    ('name', 'kind', 'label'),
    [
        ('host + sdpa', 'host + sdpa', 'host + sdpa'),
        ('Hourglass(after=10, grid=(28, 28))', 'Hourglass', '10, (28, 28)'),
        ('SegmentClustering(segments=6, clusters=49, after=6)', 'kmedoids', '6 x 49, 6'),
        ("SegmentClustering(segments=6, clusters=49, algorithm='spectral', after=6)", 'spectral', '6 x 49, 6'),
        ('SegmentClustering(segments=6, clusters=49, size_bias=True, after=6)', 'kmedoids', '6 x 49, counted, 6'),
        (
            'SegmentClustering(segments=(6, 3), clusters=(49, 49), after=(4, 8))',
            'kmedoids',
            '(6, 3) x (49, 49), (4, 8)',
        ),
    ],
)
def test_methods_and_labels(name, kind, label):
    assert curve._kind(name) == kind and curve._short(name) == label


def test_the_line_is_the_hosts_even_where_a_row_is_slower(monkeypatch):
    drawn = []
    monkeypatch.setattr(curve.plt, 'close', drawn.append)
    found = [('host', 1, 50), ('host + sdpa', 1.1, 50), ('SegmentClustering(segments=2)', 0.5, 48)]
    rows = [
        dict(name=name, speedup=speed, metrics={'R@1': value}, differences={'R@1': value - 50}, intervals={'R@1': None})
        for name, speed, value in found
    ]
    curve.draw_curve(rows, 'R@1')
    assert len(drawn[0].axes) == 2
    for axes in drawn[0].axes:
        (line,) = (line for line in axes.lines if line.get_linestyle() == ':')
        assert list(line.get_ydata()) == [50, 50]
