"""Attached models under torch.export, ONNX, fake tensors and torch.func: right, and without a trace of the trace."""

import io

import onnxruntime
import pytest
import timm
import torch
from models import IMAGES, beit, randomize, swin, vit
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fewtokens

REDUCERS = [
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3))), fewtokens.Hourglass(2, 4), fewtokens.AvgPool(2, (4, 5)),
    fewtokens.BipartiteMerge((1, 2), 6), fewtokens.GradualUpdate((1, 3), 0.3),
]  # fmt: skip


def host():
    return vit(out_indices=(2, 5), final_norm=True)


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def attached(request):
    """A model that has not run yet, and its attachment."""
    model = host()
    with fewtokens.use_sdpa(model), fewtokens.attach(model, request.param) as attachment:
        yield model, attachment


@torch.no_grad()
def expected_of(reducer, images):
    model = host()
    with fewtokens.use_sdpa(model), fewtokens.attach(model, reducer):
        return model(images)


def assert_equal(given, expected, tolerance=1e-5):
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('strict', [False, True], ids=['', 'strict'])
def test_export_right_after_attaching(attached, strict):
    model, attachment = attached
    expected = expected_of(attachment.reducer, IMAGES)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), strict=strict)
    with torch.no_grad():
        assert_equal(program.module()(IMAGES), expected)
        assert_equal(model(IMAGES), expected)
    assert type(attachment.cluster_map) is torch.Tensor


def test_export_for_any_batch(attached):
    model, attachment = attached
    batch = {0: torch.export.Dim('batch', min=2, max=16)}
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=(batch,))
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        assert_equal(program.module()(images), expected_of(attachment.reducer, images))


def run_as_onnx(model, images):
    program = torch.onnx.export(model, (torch.randn_like(images),), dynamo=True, verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    given = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return list(map(torch.from_numpy, given))


def test_onnx(attached):
    model, attachment = attached
    assert_equal(run_as_onnx(model, IMAGES), expected_of(attachment.reducer, IMAGES), 1e-3)
    with torch.no_grad():
        assert_equal(model(IMAGES), expected_of(attachment.reducer, IMAGES))


def timm_vit():
    settings = dict(img_size=64, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool='')
    return randomize(timm.models.vision_transformer.VisionTransformer(**settings))


def timm_swin():
    settings = dict(img_size=64, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=5)
    return randomize(timm.models.swin_transformer.SwinTransformer(**settings))


ONNX = {
    'timm ViT': (timm_vit, fewtokens.GradualUpdate(1, 0.5)),
    'timm Swin': (timm_swin, fewtokens.SharedUpdate(1, 2, iters=1)),
    'Swin': (
        lambda: swin(depths=(1, 1), num_heads=(1, 1), out_indices=(1,)),
        fewtokens.SharedUpdate(1, 3, iters=1),
    ),
    'BEiT': (lambda: beit(final_norm=True), fewtokens.Hourglass(2, 4, iters=1)),
}


@pytest.mark.parametrize('make, reducer', ONNX.values(), ids=ONNX)
@torch.no_grad()
def test_onnx_of_other_hosts(make, reducer):
    model, images = make(), torch.randn(1, 3, 64, 64)
    model.eval()
    whole = model(images)
    with fewtokens.attach(model, reducer):
        given, expected = run_as_onnx(model, images), model(images)
    if isinstance(expected, torch.Tensor):
        whole, expected = [whole], [expected]
    assert_equal(given, expected, 1e-4)
    assert (given[0] - whole[0]).abs().max() > 1e-2


@torch.no_grad()
def test_fake_tensors_leave_nothing(attached):
    model, attachment = attached
    images = torch.randn(1, 3, 72, 64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = model(torch.randn(1, 3, 72, 64))
    assert [t.shape[1:] for t in out] == [t.shape[1:] for t in model(images)]
    assert_equal(model(images), expected_of(attachment.reducer, images))
    assert type(attachment.cluster_map) is torch.Tensor


def test_a_trace_leaves_no_map(attached):
    model, attachment = attached
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.randn(1, 3, 72, 64))
    assert attachment.cluster_map is None and attachment.token_counts is None


@torch.no_grad()
@pytest.mark.parametrize('trace', ['make_fx', 'jit', 'functionalize', 'vmap'])
def test_other_traces(attached, trace):
    model, attachment = attached
    if trace == 'vmap':
        images = torch.randn(3, 1, 3, 64, 64)
        given = torch.vmap(lambda x: model(x))(images)
        expected = [torch.stack(outputs) for outputs in zip(*map(model, images))]
    else:
        example = torch.randn(2, 3, 64, 64)
        traced = {
            'make_fx': lambda: make_fx(model)(example),
            'jit': lambda: torch.jit.trace(model, (example,), check_trace=False, strict=False),
            'functionalize': lambda: torch.func.functionalize(model),
        }[trace]()
        given, expected = traced(IMAGES), expected_of(attachment.reducer, IMAGES)
    assert_equal(given, expected)
    model(IMAGES)
    assert attachment.cluster_map.shape == (2, 8, 8)


HOSTS = {
    'vit': (host, REDUCERS[0]),
    'swin': (swin, fewtokens.SharedUpdate(2, 3)),
    'beit': (lambda: beit(final_norm=True), fewtokens.Hourglass(2, 4)),
}


@pytest.mark.parametrize('reducing', [False, True], ids=['host', 'reduced'])
@pytest.mark.parametrize('make, reducer', HOSTS.values(), ids=HOSTS)
def test_func_grad_is_the_gradient(make, reducer, reducing):
    model = make()
    fewtokens.use_sdpa(model)
    if reducing:
        fewtokens.attach(model, reducer)
    inputs = IMAGES.clone().requires_grad_()
    model(inputs)[-1].square().sum().backward()
    given = torch.func.grad(lambda x: model(x)[-1].square().sum())(IMAGES)
    torch.testing.assert_close(given, inputs.grad, rtol=1e-3, atol=1e-4 * float(inputs.grad.abs().max()))


@pytest.mark.parametrize('make', [swin, host], ids=['swin', 'vit'])
def test_export_of_fused_attention_leaves_eager_outputs(make):
    model = make()
    with fewtokens.use_sdpa(model), torch.no_grad():
        images = torch.randn(1, 3, 64, 96)  # of a size that no other test uses
        torch.export.export(model, (images,))
        given = model(images)
    with torch.no_grad():
        assert_equal(given, model(images), 1e-4)


@pytest.mark.parametrize('reducer', [REDUCERS[0], REDUCERS[2], REDUCERS[3]], ids=lambda r: type(r).__name__)
def test_forward_mode_equals_reverse_mode_where_groups_are_empty(reducer):
    model = host()
    images = IMAGES.clone()
    images[:, :, :40] = 0.3
    with fewtokens.attach(model, reducer):
        output, tangent = torch.func.jvp(lambda x: model(x)[-1], (images,), (IMAGES,))
        _, back = torch.func.vjp(lambda x: model(x)[-1], images)
        weights = torch.randn_like(output)
        (gradient,) = back(weights)
    assert tangent.isfinite().all()
    torch.testing.assert_close((tangent * weights).sum(), (gradient * IMAGES).sum(), rtol=1e-3, atol=1e-3)
