"""Rooms with true depth: rays meet surfaces where formulas say, and files hold what was drawn."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS

import fewtokens.openmmlab  # noqa: F401
import fewtokens.openmmlab.depth_data  # noqa: F401
from demo.scenes.depth import write_depth
from demo.scenes.rays import NEAREST, meet_box, meet_cylinder, meet_plane, meet_sphere
from demo.scenes.rooms import FAR, NEAR, compose_room

ORIGIN = np.array([0.3, 1.5, -0.2])
CENTRE = np.array([0.4, 1.0, 5.0])
HALF, TURNED = np.array([0.5, 1.0, 0.8]), 0.7


@pytest.fixture
def rays():
    random = np.random.default_rng(0)
    rays = np.concatenate([random.uniform(-0.5, 0.5, (4000, 2)), np.ones((4000, 1))], axis=1)
    return rays


def in_box(points):
    cosine, sine = np.cos(TURNED), np.sin(TURNED)
    x, y, z = (points - CENTRE).T
    return np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=1) / HALF


SOLIDS = {
    # How far points are inside: less than 1.
    'box': (lambda o, r: meet_box(o, r, CENTRE, HALF, TURNED), lambda p: np.abs(in_box(p)).max(1)),
    'ball': (lambda o, r: meet_sphere(o, r, CENTRE, 0.9), lambda p: np.linalg.norm(p - CENTRE, axis=1) / 0.9),
    'post': (
        lambda o, r: meet_cylinder(o, r, CENTRE, 0.6, 9.0),
        lambda p: np.linalg.norm((p - CENTRE)[:, [0, 2]], axis=1) / 0.6,
    ),
}


@pytest.mark.parametrize('kind', SOLIDS)
def test_a_solid_is_met_where_a_ray_first_enters_it(kind, rays):
    meet, inside = SOLIDS[kind]
    hits = meet(ORIGIN, rays)
    steps = np.arange(NEAREST, 12, 0.01)
    entered = np.stack([inside(ORIGIN + step * rays) < 1 for step in steps], axis=1)
    met = np.isfinite(hits.along)
    assert 0.02 < met.mean() < 0.7
    # Steps are too coarse for rays that graze it.
    assert (entered.any(1) != met).mean() < 0.01
    both = met & entered.any(1)
    first = steps[entered.argmax(1)]
    assert (first - hits.along)[both].min() > -1e-9 and (first - hits.along)[both].max() < 0.011
    points = ORIGIN + hits.along[met, None] * rays[met]
    assert np.abs(inside(points) - 1).max() < 1e-6
    # Normals are of unit length, look outside and stand on the surface.
    normals = hits.normals[met]
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-6
    assert ((normals * rays[met]).sum(1) <= 1e-9).all()
    assert (inside(points + 1e-3 * normals) > 1).all() and (inside(points - 1e-3 * normals) < 1).all()


def test_a_plane(rays):
    hits = meet_plane(ORIGIN, rays, 1, 0.0)
    assert np.array_equal(np.isfinite(hits.along), (rays[:, 1] < 0) & (-1.5 / rays[:, 1] > NEAREST))
    met = np.isfinite(hits.along)
    points = ORIGIN + hits.along[met, None] * rays[met]
    assert np.abs(points[:, 1]).max() < 1e-9 and np.allclose(hits.places[met], points[:, [0, 2]])
    assert (hits.normals == (0, 1, 0)).all()


@pytest.fixture(scope='module')
def textures():
    random = np.random.default_rng(5)
    return [cv2.resize(random.integers(0, 256, (8, 8, 3), np.uint8), (90, 70)) for _ in range(4)]


def test_a_room_is_whole_and_the_same_each_time(textures):
    rooms = [compose_room(np.random.default_rng(seed), textures, 64) for seed in range(8)]
    for image, depth in rooms:
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 5
        assert depth.shape == (64, 64) and NEAR < depth.min() and depth.max() < FAR
        # The floor comes nearer downwards.
        assert depth[-1].mean() < depth[32].mean()
    again = compose_room(np.random.default_rng(3), textures, 64)
    assert all(np.array_equal(one, other) for one, other in zip(rooms[3], again))


def test_files_are_what_the_data_set_reads(tmp_path):
    write_depth(tmp_path, dict(validation=2), size=48, seed=3)
    write_depth(tmp_path / 'more', dict(validation=1), size=48, seed=3)
    load = dict(type='mmseg.LoadDepthAnnotation', depth_rescale_factor=1 / 256)
    prefix = dict(img_path='images/validation', depth_map_path='depth/validation')
    setting = dict(type='mmseg.DepthDataset', data_root=str(tmp_path), data_prefix=prefix)
    pipeline = [dict(type='LoadImageFromFile'), load, dict(type='mmseg.PackDepthInputs')]
    data = DATASETS.build(dict(setting, pipeline=pipeline))
    depth = data[0]['data_samples'].gt_depth_map.data[0].numpy()
    assert len(data) == 2 and depth.shape == (48, 48) and NEAR < depth.min() < depth.max() < FAR
    for kind, name in (('images', '00000.jpg'), ('depth', '00000.png')):
        first, again = (folder / kind / 'validation' / name for folder in (tmp_path, tmp_path / 'more'))
        assert first.read_bytes() == again.read_bytes()
