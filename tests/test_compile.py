"""torch.compile of attached models: outputs are the eager ones, whatever was compiled before."""

import pytest
import torch
from models import segmenter, swin, vit

import fewtokens

# Iterations are written out as they are compiled: one more says nothing new.
REDUCERS = [
    fewtokens.SharedUpdate(1, 4, iters=2), fewtokens.BipartiteMerge((0, 1), 6), fewtokens.Hourglass(1, 4, iters=2),
    fewtokens.GradualUpdate(1, 0.3),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def host():
    return vit(depth=3, out_indices=(1, 2), final_norm=True)


def images_of(*batches):
    return [torch.randn(batch, 3, 64, 64) for batch in batches]


@torch.no_grad()
def assert_same(compiled, model, images):
    for x in images:
        for given, expected in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'reducer, dynamic',
    [*((reducer, None) for reducer in REDUCERS), *((reducer, True) for reducer in REDUCERS[:2])],
    ids=lambda value: {None: '', True: 'dynamic'}.get(value, type(value).__name__),
)
def test_batches_that_vary(reducer, dynamic):
    """The third batch is compiled for any size; `dynamic` does so from the first."""
    model = host()
    with fewtokens.attach(model, reducer):
        compiled = torch.compile(model, backend='eager', dynamic=dynamic, fullgraph=True)
        assert_same(compiled, model, images_of(2, 1, 3))


def test_nothing_is_compiled_again_from_call_to_call():
    model = host()
    with fewtokens.attach(model, REDUCERS[0]) as attachment, torch.no_grad():
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        compiled(images_of(2)[0])
        with torch.compiler.set_stance('fail_on_recompile'):
            for x in images_of(2, 2, 2):
                compiled(x)
                seen = attachment.cluster_map
                model(x)
                assert torch.equal(seen, attachment.cluster_map)
        assert attachment.passes == 1 + 3


@pytest.mark.parametrize('reducer', REDUCERS[:2], ids=lambda r: type(r).__name__)
def test_blocks_compiled_one_by_one(reducer):
    model = host()
    images = images_of(2, 3)
    with fewtokens.attach(model, reducer), torch.no_grad():
        expected = [model(x) for x in images]
        for block in model.layers:
            block.compile(backend='eager')
        for x, wanted in zip(images, expected):
            for given, one in zip(model(x), wanted, strict=True):
                torch.testing.assert_close(given, one, rtol=1e-4, atol=1e-4)


def test_an_attached_model_beside_one_that_is_not():
    plain, attached, other = host(), host(), host()
    with (
        fewtokens.attach(attached, REDUCERS[0]),
        fewtokens.attach(other, fewtokens.SharedUpdate(1, 4, iters=2, size_bias=False)),
    ):
        for model in (plain, attached, other, plain):
            assert_same(torch.compile(model, backend='eager'), model, images_of(2))


def test_training():
    model = host()
    model.train()
    inputs = [x.requires_grad_() for x in images_of(2, 3)]

    def gradients(call):
        return [torch.autograd.grad(call(x)[-1].square().sum(), x)[0] for x in inputs]

    with fewtokens.attach(model, REDUCERS[0]):
        expected = gradients(model)
        for given, wanted in zip(gradients(torch.compile(model, backend='aot_eager')), expected):
            torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-3)


def test_inductor():
    model = host()
    with fewtokens.use_sdpa(model), fewtokens.attach(model, REDUCERS[0]):
        assert_same(torch.compile(model), model, images_of(2))


def test_windows():
    model = swin(depths=(1, 1, 1, 1))
    with fewtokens.use_sdpa(model), fewtokens.attach(model, fewtokens.SharedUpdate(1, 3, iters=2)):
        assert_same(torch.compile(model, backend='eager'), model, images_of(2))


def test_heads():
    model = segmenter()
    with fewtokens.attach(model, fewtokens.Hourglass(4, 4)):
        assert_same(
            torch.compile(lambda x: model(x, mode='tensor'), backend='eager'),
            lambda x: model(x, mode='tensor'),
            images_of(2),
        )


def test_an_input_with_too_few_tokens():
    model = host()
    small = torch.randn(2, 3, 64, 24)
    expected = model(small)
    with fewtokens.attach(model, REDUCERS[0]) as attachment, pytest.warns(UserWarning, match='too few of them'):
        compiled = torch.compile(model, backend='eager')
        for given, wanted in zip(compiled(small), expected, strict=True):
            torch.testing.assert_close(given, wanted)
        assert (attachment.passes, attachment.skipped) == (0, 1)


def test_checkpointing_around_compiled_blocks_is_right_or_refused():
    model = host()
    model.train()
    inputs = images_of(2)[0]

    def blocks(x):
        tokens, _ = model.patch_embed(x)
        tokens = torch.cat([model.cls_token.expand(len(x), -1, -1), tokens], dim=1) + model.pos_embed
        for block in model.layers:
            tokens = torch.utils.checkpoint.checkpoint(block, tokens, use_reentrant=False)
        return tokens.square().sum()

    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)):
        x = inputs.clone().requires_grad_()
        blocks(x).backward()
        expected = x.grad
        for block in model.layers:
            block.compile(backend='aot_eager')
        x = inputs.clone().requires_grad_()
        try:
            blocks(x).backward()
        except Exception as error:
            assert 'runs again in backward' in str(error)
        else:
            torch.testing.assert_close(x.grad, expected, rtol=1e-3, atol=1e-3)
