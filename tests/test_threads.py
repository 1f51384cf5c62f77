"""One attached model used by several threads or tasks at once."""

import asyncio
import sys
import threading

import pytest
import torch
from models import segmenter, swin, vit

import fewtokens

REDUCERS = [fewtokens.SharedUpdate((1, 3), (5, 3)), fewtokens.Hourglass(2, 4), fewtokens.BipartiteMerge((1, 2), 6)]


@pytest.fixture
def hasty_threads():
    """Python changes threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def run_in_threads(work, count):
    """Calls work(i) in threads that start together; returns what they returned, and raises what one raised."""
    results, start = [None] * count, threading.Barrier(count)

    def call(i):
        start.wait()
        try:
            results[i] = work(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


@pytest.mark.parametrize('reducer', REDUCERS, ids=lambda r: type(r).__name__)
def test_threads_have_passes_of_their_own(reducer, hasty_threads):
    model = vit(out_indices=(2, 5), final_norm=True)
    images = [torch.randn(1 + i % 2, 3, 64, 64 + 8 * i) for i in range(4)]
    with fewtokens.attach(model, reducer) as attachment, torch.no_grad():
        expected = [model(x) for x in images]
        attachment.passes = 0

        @torch.no_grad()
        def work(i):
            return [model(images[i]) for _ in range(25)]

        for given, wanted in zip(run_in_threads(work, 4), expected):
            for outputs in given:
                for one, other in zip(outputs, wanted, strict=True):
                    torch.testing.assert_close(one, other)
        assert attachment.passes == 100


def test_windows_in_threads(hasty_threads):
    model = swin()
    images = [torch.randn(1, 3, 64, 64 + 32 * i) for i in range(3)]
    with fewtokens.use_sdpa(model), fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)), torch.no_grad():
        expected = [model(x)[-1] for x in images]
        for given, wanted in zip(run_in_threads(torch.no_grad()(lambda i: model(images[i])[-1]), 3), expected):
            torch.testing.assert_close(given, wanted)


def test_heads_in_threads(hasty_threads):
    model = segmenter()
    images = [torch.randn(1, 3, 64, 64) for _ in range(4)]
    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)), torch.no_grad():
        expected = [model(x, mode='tensor') for x in images]
        work = torch.no_grad()(lambda i: [model(images[i], mode='tensor') for _ in range(10)])
        for given, wanted in zip(run_in_threads(work, 4), expected):
            for one in given:
                torch.testing.assert_close(one, wanted)


def test_tasks_that_take_turns_between_backbone_and_head():
    model = segmenter()
    images = [torch.randn(1, 3, 64, 64) for _ in range(3)]

    async def segment(image):
        features = model.extract_feat(image)
        await asyncio.sleep(0)
        return model.decode_head.forward(features)

    async def all_at_once():
        return await asyncio.gather(*map(segment, images))

    with fewtokens.attach(model, fewtokens.Hourglass(2, 4)), torch.no_grad():
        expected = [model(x, mode='tensor') for x in images]
        for given, wanted in zip(asyncio.run(all_at_once()), expected):
            torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize('with_cp', [False, True], ids=['plain', 'checkpointed'])
def test_training_in_threads_is_right_or_refused(with_cp, hasty_threads):
    model = vit(final_norm=True, with_cp=with_cp)
    model.train()
    images = [torch.randn(2, 3, 64, 64) for _ in range(2)]
    ready = threading.Barrier(2)

    def gradient(i, wait=False):
        inputs = images[i].clone().requires_grad_()
        loss = model(inputs)[0].square().sum()
        if wait:
            ready.wait()
        loss.backward()
        return inputs.grad

    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        expected = [gradient(i) for i in range(2)]
        if with_cp:
            with pytest.raises(RuntimeError, match='forward passes came before'):
                run_in_threads(lambda i: gradient(i, wait=True), 2)
        else:
            for given, wanted in zip(run_in_threads(lambda i: gradient(i, wait=True), 2), expected):
                torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-4)


def test_a_pass_that_begins_during_another_backward_does_not_take_its_place():
    model = vit(final_norm=True, with_cp=True)
    model.train()
    images = torch.randn(2, 3, 64, 64)

    def gradient(between=None):
        inputs = images.clone().requires_grad_()
        tokens = model(inputs)[0]
        if between is not None:
            # The fifth block is run again after the last one, and before the others.
            model.layers[4].attn.register_forward_hook(lambda module, args, output: between())
        tokens.square().sum().backward()
        return inputs.grad

    began = []

    def other():
        if began:
            return
        began.append(True)
        thread = threading.Thread(target=lambda: model(torch.randn(1, 3, 64, 80)))
        thread.start()
        thread.join()

    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        expected = gradient()
        torch.testing.assert_close(gradient(other), expected, rtol=1e-3, atol=1e-4)
    assert began


def test_a_graph_may_be_run_through_again():
    model = vit(final_norm=True, with_cp=True)
    model.train()
    inputs = torch.randn(2, 3, 64, 64, requires_grad=True)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        loss = model(inputs)[0].square().sum()
        loss.backward(retain_graph=True)
        first, inputs.grad = inputs.grad, None
        loss.backward()
    torch.testing.assert_close(first, inputs.grad)
