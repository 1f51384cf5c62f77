from dataclasses import dataclass, field

import pytest

import fewtokens
from fewtokens.plugin import kind_of, label_of, parse_reducer
from fewtokens.video.clustered import VideoPlugin


@dataclass(frozen=True)
class Mine(fewtokens.Reducer):
    strength: float
    kind: str = 'soft'
    places: tuple[int, ...] = field(default_factory=tuple)


@pytest.mark.parametrize(
    'plugin, kind, label',
    [
        (fewtokens.Hourglass(10, 28), 'Hourglass', '10, 28'),
        (fewtokens.Hourglass(10, (28, 14), temperature=2.5, k=3), 'Hourglass', '10, (28, 14), k=3, T=2.5'),
        (fewtokens.SharedUpdate((3, 6), (20, (14, 7))), 'SharedUpdate', '(3, 6), (20, (14, 7))'),
        (fewtokens.SharedUpdate(3, 20, size_bias=False), 'SharedUpdate', '3, 20, size_bias=False'),
        (fewtokens.BipartiteMerge((1, 2), 8), 'BipartiteMerge', '(1, 2), 8'),
        (Mine(1, 0.5), 'Mine', '1, 0.5'),
        (Mine(1, 0.5, kind='hard'), 'Mine', '1, 0.5, kind=hard'),
    ],
)
def test_methods_and_labels(plugin, kind, label):
    assert (kind_of(plugin), label_of(plugin)) == (kind, label)


@pytest.mark.parametrize(
    'options, kind, label',
    [
        ('segments=6, clusters=49, after=6', 'kmedoids', '6 x 49, 6'),
        ("segments=6, clusters=49, algorithm='spectral', after=6", 'spectral', '6 x 49, 6'),
        ('size_bias=True, segments=6, clusters=49', 'kmedoids', '6 x 49, counted, 6'),
        ("segments=6, clusters=49, aggregate='mean', knn=5", 'kmedoids', '6 x 49, means, knn=5, 6'),
        ('segments=(6, 3), clusters=(49, 49), after=(4, 8)', 'kmedoids', '(6, 3) x (49, 49), (4, 8)'),
        ("algorithm='token_shift', after=2", 'token_shift', '2'),
    ],
)
def test_methods_and_labels_of_clusterings(options, kind, label):
    plugin = VideoPlugin.parse(f'SegmentClustering({options})')
    assert (kind_of(plugin), label_of(plugin)) == (kind, label)


def test_reducers_are_read_like_their_call():
    assert parse_reducer('GradualUpdate((0, 3), keep=0.5)') == fewtokens.GradualUpdate(after=(0, 3), keep=0.5)
    with pytest.raises(ValueError, match='no reducer .Graduate.; there are AvgPool, .*, SharedUpdate, ToMe'):
        parse_reducer('Graduate(1)')
    with pytest.raises(ValueError, match="SharedUpdate has no option 'grd'"):
        parse_reducer('SharedUpdate(1, grd=2)')
