import pytest
import torch
from models import IMAGES, beit, outputs, segmenter, snapshot, vit

import fewtokens


@pytest.mark.parametrize(
    'make', [segmenter, vit, beit, lambda: beit(kind='MAE')], ids=['segmenter', 'vit', 'beit', 'mae']
)
def test_same_output_through_fused_attention(make, monkeypatch):
    model = make()
    before, expected = snapshot(model), outputs(model)
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, 'scaled_dot_product_attention', lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    assert torch.equal(outputs(model), expected) and not calls
    with fewtokens.use_sdpa(model) as attachment:
        torch.testing.assert_close(outputs(model), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert len(calls) == len(attachment.places) >= 6 and 'places' in attachment.summary()
    assert snapshot(model) == before
    assert torch.equal(outputs(model), expected)


@pytest.mark.parametrize('make', [segmenter, beit], ids=['segmenter', 'beit'])
@pytest.mark.parametrize('fused_first', [True, False])
@pytest.mark.parametrize('removed_first', [True, False])
def test_with_a_reducer_in_any_order(make, fused_first, removed_first):
    model = make()
    before, expected = snapshot(model), outputs(model)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        reduced = outputs(model)
    switches = [lambda: fewtokens.use_sdpa(model), lambda: fewtokens.attach(model, fewtokens.SharedUpdate(2, 4))]
    attached = [switch() for switch in (switches if fused_first else switches[::-1])]
    torch.testing.assert_close(outputs(model), reduced, rtol=1e-4, atol=1e-4)
    first, second = attached if removed_first else attached[::-1]
    first.remove()
    rest = expected if first is attached[0 if not fused_first else 1] else reduced
    torch.testing.assert_close(outputs(model), rest, rtol=1e-4, atol=1e-4)
    second.remove()
    assert snapshot(model) == before and torch.equal(outputs(model), expected)


def test_second_switch_is_refused():
    model = segmenter()
    with fewtokens.use_sdpa(model), pytest.raises(ValueError, match='attached already'):
        fewtokens.use_sdpa(model)


def test_nothing_to_switch_says_so():
    with fewtokens.use_sdpa(torch.nn.Linear(2, 2)) as attachment:
        assert 'no attention found' in attachment.summary()


def test_gradients_are_the_hosts():
    model = beit(final_norm=True)
    gradients = []
    for switch in (False, True):
        attachment = fewtokens.use_sdpa(model) if switch else None
        model.zero_grad()
        model(IMAGES)[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        if attachment:
            attachment.remove()
    for given, expected in zip(*gradients):
        torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)
