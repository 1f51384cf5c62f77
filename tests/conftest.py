import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package

GOLDEN = Path(__file__).parent / 'data' / 'golden.npz'


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope='session')
def golden():
    """What the papers' own code returned: {name: (meta, {array name: tensor})}."""
    arrays = np.load(GOLDEN)
    cases = {}
    for name, meta in json.loads(str(arrays['index'])):
        stored = {key.split('/')[1]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(f'{name}/')}
        cases[name] = (meta, stored)
    return cases


def features(seed, shape, scale=1.0):
    """The golden cases' inputs [B, H*W, C]: noise, smoothed over the grid, with a little more noise."""
    random = np.random.RandomState(seed)
    x = random.standard_normal(shape)
    for axis in (1, 2):
        for _ in range(3):
            x = (np.roll(x, 1, axis) + 2 * x + np.roll(x, -1, axis)) / 4
    x = x / x.std() + 0.25 * random.standard_normal(shape)
    return torch.from_numpy((x * scale).astype(np.float32)).reshape(shape[0], -1, shape[3])


@pytest.fixture(name='features', scope='session')
def features_fixture():
    return features


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """A folder with four training and three held-out scenes of 64 x 64."""
    from demo.scenes.ade20k import write_ade20k

    folder = tmp_path_factory.mktemp('scenes')
    write_ade20k(folder, dict(training=4, validation=3), size=64)
    return folder


@pytest.fixture
def config_file(tmp_path, scenes):
    from scenes import write_config

    return write_config(tmp_path, scenes)


@pytest.fixture
def checkpoint(tmp_path, config_file):
    """Random weights of the tiny config's model."""
    from models import randomize

    from fewtokens.openmmlab.config import load_config
    from fewtokens.openmmlab.model import build_model

    model = randomize(build_model(load_config(config_file)))
    path = tmp_path / 'tiny.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij'), palette=[[i, 20 * i, 255 - i] for i in range(10)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
