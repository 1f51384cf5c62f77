import cv2
import numpy as np
import pytest

from fewtokens.report.pictures import (
    cluster_borders,
    draw_clusters,
    encode_jpeg,
    enlarge,
    find_pictures,
    magnify,
    paint_depth,
    read_filled,
)


def test_borders_stand_between_clusters():
    clusters = np.array([[0, 1], [0, 0]])
    assert np.array_equal(enlarge(clusters, (4, 4)), [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert np.array_equal(
        cluster_borders(clusters, (4, 4)),
        np.array([[0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]], bool),
    )
    image = np.zeros((4, 4, 3), np.uint8)
    image[2:, :] = 120
    drawn = draw_clusters(image, clusters)
    # Borders are half white; the mean of the first cluster's twelve pixels is 80.
    assert (drawn[0, 1] == 40 + 128).all() and (drawn[3] == 80).all() and (drawn[0, 3] == 0).all()
    assert magnify(image).shape == (512, 512, 3) and np.array_equal(magnify(image)[::128, ::128], image)


def test_even_factors_of_depth_are_even_steps_of_colour():
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO)[:, 0, ::-1].astype(int)

    def shade(depth):
        drawn = paint_depth(np.full((2, 2), depth), (1.0, 16.0))[0, 0].astype(int)
        return int(np.abs(ramp - drawn).sum(1).argmin())

    shades = [shade(depth) for depth in (1, 2, 4, 8, 16)]
    assert shades[0] == 255 and shades[-1] == 24 and np.ptp(np.diff(shades)) <= 1
    assert (shade(0.1), shade(99)) == (255, 24)
    unknown = np.array([[0, np.nan, 2], [2, 2, 2]])
    assert not paint_depth(unknown, (1.0, 16.0))[0, :2].any()


def test_the_few_known_pixels_of_a_sparse_map_are_drawn_larger():
    depth = np.zeros((9, 9))
    depth[4, 4] = 2
    drawn = paint_depth(depth, (1.0, 16.0)).any(2)
    assert drawn[3:6, 3:6].all() and drawn.sum() == 9


@pytest.mark.parametrize(
    'side, factor', [((64, 64), 8), ((20, 600), 6), ((600, 20), 6), ((1, 5000), 1), ((500, 700), 1)]
)
def test_small_pictures_are_magnified_within_bounds(side, factor):
    assert magnify(np.zeros(side, np.uint8)).shape == (factor * side[0], factor * side[1])


@pytest.mark.parametrize(
    'size, expected', [((20, 65500), (20, 65500)), ((40, 131000), (20, 65500)), ((65536, 1), (65500, 1))]
)
def test_pictures_fit_into_a_jpeg(size, expected):
    content = encode_jpeg(np.full((*size, 3), 77, np.uint8))
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (*expected, 3) and abs(image.astype(int) - 77).max() <= 1


def test_the_middle_of_a_picture_fills_the_size_that_is_asked_for(tmp_path):
    """Nothing is squeezed: of a wide picture the sides go, of a high one what is above and below."""
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, 30:50] = (255, 0, 0)  # BGR
    cv2.imwrite(str(tmp_path / 'wide.png'), wide)
    cv2.imwrite(str(tmp_path / 'high.png'), wide.transpose(1, 0, 2))
    for name in ('wide.png', 'high.png'):
        for size in ((10, 10), (40, 40)):
            filled = read_filled(tmp_path / name, size)
            assert filled.shape == (*size, 3) and (filled == (0, 0, 255)).all()


def test_what_is_no_picture_is_none(tmp_path):
    for content in (b'', b'no picture'):
        (tmp_path / 'a.png').write_bytes(content)
        assert read_filled(tmp_path / 'a.png', (4, 4)) is None


def test_pictures_are_found_by_name(tmp_path):
    for name in ('b.PNG', 'a.jpeg', '._a.jpeg', 'notes.txt'):
        (tmp_path / name).touch()
    assert [file.name for file in find_pictures(tmp_path)] == ['a.jpeg', 'b.PNG']
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        find_pictures(tmp_path / 'none')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no pictures in .*files ending in .bmp'):
        find_pictures(tmp_path / 'empty')
