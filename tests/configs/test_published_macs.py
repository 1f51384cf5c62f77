"""The published GMACs of DINO and Mask2Former are those of Swin-L alone, of one image of 1152 x 1152 or of a video."""

import csv
import functools
import re
from pathlib import Path

import pytest
from counting import Counter
from mmengine.registry import MODELS, DefaultScope

from docs.make_published_rows import counted_macs
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.registry import build_reducer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/hourglass').glob('*swin*.py'))
VIDEOS = [path for path in CONFIGS if '-vis_' in path.stem]
IMAGES = [path for path in CONFIGS if path not in VIDEOS]
# By their figures, these three were counted with one more block clustered than their table says: of one of them the
# released config says so too.
ONE_BLOCK_EARLIER = {
    'mask2former_swin-l_ade20k-640x640_8-8x8',
    'mask2former_swin-l_coco-instance_12-8x8',
    'mask2former_swin-l_coco-panoptic_10-8x8',
}
HOST = 937
CHANNELS, WINDOWS = 768, (1152 // 16 // 12) ** 2
"""Of the third stage."""


# Each is read by several tests, and nothing is changed in it.
config_of = functools.cache(load_config)


@pytest.fixture(scope='module')
def backbone():
    config = config_of(CONFIGS[0])
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone = MODELS.build(config.model.backbone).to('meta')
    backbone.eval()
    return backbone


@pytest.fixture(scope='module')
def counter(backbone):
    return Counter(backbone)


@pytest.fixture(scope='module')
def host(counter):
    return counter()


def test_the_host(backbone, host):
    assert abs(host[1] - HOST) < 0.5
    with open(ROOT / 'tests/data/expedit.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['model'] == 'DINO Swin-L 5scale' and row['method'] == 'none']
    assert [row['gflops_published'] for row in rows] == [str(HOST)]


def test_all_have_the_same_backbone():
    backbones = [config_of(path).model.backbone for path in CONFIGS]
    for name in ('embed_dims', 'depths', 'num_heads', 'window_size', 'mlp_ratio'):
        assert len({str(backbone[name]).strip('()[]') for backbone in backbones}) == 1


def block_gmacs(window):
    """Of a block of the third stage: projections and perceptron, and attention within windows."""
    tokens = WINDOWS * window**2
    return tokens * (12 * CHANNELS**2 + 2 * window**2 * CHANNELS) / 1e9


@pytest.mark.parametrize('path', IMAGES, ids=lambda path: path.stem)
def test_a_published_row(path, counter, host):
    (hook,) = (hook for hook in config_of(path).custom_hooks if hook['type'] == 'FewTokensHook')
    settings = hook['reducer']
    published = float(re.search(r'to (\d+) GMACs', path.read_text())[1])
    macs, with_norms = counter(build_reducer(settings))
    assert counted_macs()[path.stem] == [round(host[0], 2), round(macs, 2)]
    if path.stem in ONE_BLOCK_EARLIER:
        earlier = counter(build_reducer({**settings, 'after': settings['after'] - 1}))
        assert macs - earlier[0] == pytest.approx(block_gmacs(12) - block_gmacs(settings['grid'][0]), rel=1e-6)
        macs, with_norms = earlier
    assert abs(with_norms - published) < 0.7
    assert macs / host[0] == pytest.approx(published / HOST, rel=0.005)


@pytest.mark.parametrize('path', VIDEOS, ids=lambda path: path.stem)
def test_a_published_row_of_videos(path, backbone):
    """To the digit, norms counted: the frames that their counter had are not those of the test set."""
    (hook,) = config_of(path).custom_hooks
    said = re.search(r'(\d+) to (\d+) GMACs of the backbone at (\d+) frames of (\d+) x (\d+)', path.read_text())
    before, after, *shape = map(int, said.groups())
    counter = Counter(backbone, *shape)
    host, reduced = counter(), counter(build_reducer(hook['reducer']))
    assert counted_macs()[path.stem] == [round(host[0], 2), round(reduced[0], 2)]
    assert (round(host[1]), round(reduced[1])) == (before, after)
