import json
from pathlib import Path

import numpy as np
import pytest
import torch

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
