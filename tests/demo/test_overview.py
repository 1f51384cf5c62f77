import numpy as np
import pytest

from demo.draw_overview import main, plot_overview
from fewtokens.measure.rows import Row
from fewtokens.report.features import Shown


def test_a_line_has_the_photograph_and_what_all_and_fewer_tokens_see():
    flat = [np.full((8, 12, 3), value, np.uint8) for value in range(6)]
    drawn = [Shown(name, [tuple(flat[:3]), tuple(flat[3:])], [100.0, 97.21]) for name in ('a', 'b')]
    figure = plot_overview(drawn, Row(name='AvgPool(1, 2)', kind='AvgPool', params=1, speedup=1.84))
    assert 'AvgPool(1, 2) is 1.8x as fast' in figure.get_suptitle()
    assert len(figure.axes) == 12
    for line in (figure.axes[:6], figure.axes[6:]):
        # The photograph beside its clusters, features beside features, maps beside maps.
        assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in line] == [0, 3, 1, 4, 2, 5]
        assert line[3].get_xlabel() == 'cosine 0.972'


def test_a_name_that_is_no_jpegs_is_refused(monkeypatch):
    monkeypatch.setattr('sys.argv', ['draw_overview.py', '--out', 'overview.png'])
    with pytest.raises(ValueError, match="--out 'overview.png' must end with .jpg"):
        main()
