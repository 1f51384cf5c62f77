import models
import numpy as np
import pytest
import torch
from clocks import Clock
from torch.nn import functional as F

import fewtokens
from fewtokens.hosts import find_hosts
from fewtokens.measure import tune as tuning
from fewtokens.measure.agreement import cosine, final_tokens
from fewtokens.measure.recipes import Method
from fewtokens.measure.tune import UnreachableError, tune
from fewtokens.measure.variants import Variant
from fewtokens.plugin import text_of

# In a model this small, what merging takes counts: one iteration of it.
SHARED = (Method(fewtokens.SharedUpdate, options=dict(size_bias=(True, False), iters=(1,))),)


def pictures(count, size=(64, 64)):
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return list(F.interpolate(noise, size, mode='bicubic').split(1))


def search(model, images, target, clock=None, methods=SHARED, **options):
    return tune(model, images, target, methods=methods, clock=clock or Clock(), say=lambda text: None, **options)


@pytest.fixture(autouse=True)
def no_sketch(monkeypatch):
    monkeypatch.setattr(tuning, 'SKETCHED', ())


@pytest.fixture(scope='module')
def model():
    return models.vit(depth=4)


def measured(model, images, reducer):
    """Mean cosine and speed, measured without the search."""
    clock, (host,) = Clock(), find_hosts(model)
    rows = {'host + sdpa': lambda: Variant('', None).applied(model), 'it': lambda: Variant('', reducer).applied(model)}
    with torch.no_grad():
        seconds = clock(rows, lambda: model(images[0]), 1, 0, 'cpu')
    cosines = []
    for image in images:
        full = final_tokens(host, model, image, lambda model, x: model(x))
        with fewtokens.attach(model, reducer):
            cosines.append(cosine(full, final_tokens(host, model, image, lambda model, x: model(x))))
    return np.mean(cosines), float((seconds['host + sdpa'] / seconds['it'])[0])


def test_a_speed_is_reached_and_little_more_and_nothing_agrees_better(model):
    images = pictures(6)
    found = search(model, images, '1.4x')
    chosen, searched = found.chosen, [images[i] for i in (0, 2, 3, 5)]
    agreement, speed = measured(model, searched, chosen.reducer)
    assert 1.4 <= speed <= 1.4 * 1.05 and chosen.speed.value == pytest.approx(speed)
    assert chosen.agreement.value == pytest.approx(agreement, abs=1e-5) and chosen.agreement.count == 4
    assert found.pictures == (4, 2) and found.held_out.count == 2
    # By hand: every place and square grid, with and without the bias.
    others = [
        fewtokens.SharedUpdate(after, grid, size_bias=bias)
        for after in (1, 2)
        for grid in range(2, 8)
        for bias in (True, False)
    ]
    by_hand = {other: measured(model, searched, other) for other in others}
    best = max(agrees for agrees, fast in by_hand.values() if fast >= 1.4)
    assert best > 0.5 and agreement >= best - 1e-4


def test_an_agreement_is_reached_and_nothing_that_has_it_is_faster(model):
    images = pictures(6)
    found = search(model, images, 'cosine >= 0.97')
    assert found.chosen.agreement.low >= 0.97 and found.chosen.speedup > 1
    searched = [images[i] for i in (0, 2, 3, 5)]
    others = [fewtokens.SharedUpdate(after, grid) for after in (1, 2) for grid in range(2, 8)]
    by_hand = {other: measured(model, searched, other) for other in others}
    sure = 0.97 + found.chosen.agreement.value - found.chosen.agreement.low
    fastest = max([fast for agrees, fast in by_hand.values() if agrees >= sure + 1e-3], default=1.0)
    assert found.chosen.speedup >= fastest - 1e-3
    assert found.confirmed == (found.held_out.value >= 0.97) and found.lead is None


def test_a_noisy_machine_is_measured_longer(model):
    images, clocks = pictures(3), [Clock(), Clock(noise=0.1)]
    quiet, noisy = (search(model, images, '1.4x', clock) for clock in clocks)
    assert quiet.chosen.speed.low == quiet.chosen.speed.high and quiet.chosen.speed.count == 5
    assert noisy.chosen.speed.low < noisy.chosen.speed.value < noisy.chosen.speed.high
    assert noisy.chosen.speed.count > 5 and 1.4 <= noisy.chosen.speedup


class Interrupted(Exception):
    pass


def test_an_interrupted_search_goes_on_where_it_was(model, tmp_path, monkeypatch):
    images, kept = pictures(3), tmp_path / 'kept.jsonl'
    whole_clock = Clock()
    whole = search(model, images, '1.4x', whole_clock)

    class Breaks(Clock):
        def __call__(self, *args):
            if len(self.calls) == 1:
                raise Interrupted
            return super().__call__(*args)

    with pytest.raises(Interrupted):
        search(model, images, '1.4x', Breaks(), kept=kept)
    clock = Clock()
    resumed = search(model, images, '1.4x', clock, kept=kept)
    assert resumed.chosen == whole.chosen and resumed.kept > 0
    assert clock.calls == whole_clock.calls[1:]
    # Run once more, it measures nothing.
    monkeypatch.setattr('fewtokens.measure.bench.final_tokens', None)
    again_clock = Clock()
    again = search(model, images, '1.4x', again_clock, kept=kept)
    assert again.chosen == whole.chosen and again_clock.calls == []


def test_other_weights_pictures_and_threads_are_measured_anew(model, tmp_path, monkeypatch):
    images, kept = pictures(3), tmp_path / 'kept.jsonl'
    search(model, images, '1.4x', kept=kept)
    changed = models.vit(depth=4)
    changed.layers[0].ln1.weight.data += 1
    assert search(changed, images, '1.4x', kept=kept).kept == 0
    clock = Clock()
    found = search(model, [image + 1 for image in images], '1.4x', clock, kept=kept)
    # Time does not depend on what is seen, and agreement does.
    first = search(model, images, '1.4x')
    assert found.kept > 0 and found.chosen.agreement.value != first.chosen.agreement.value
    clock.calls.clear()
    search(model, images, '1.4x', clock, kept=kept)
    assert clock.calls == []
    monkeypatch.setattr('torch.get_num_threads', lambda: 77)
    search(model, images, '1.4x', clock, kept=kept)
    assert clock.calls != []


@pytest.mark.parametrize('target', ['40x', 'cosine >= 0.999999'])
def test_what_cannot_be_reached_says_how_far_it_went(model, target):
    with pytest.raises(UnreachableError) as error:
        search(model, pictures(2), target)
    text = str(error.value)
    assert text.startswith(f'{target} cannot be reached') and 'SharedUpdate(after=' in text and 'vary' not in text
    assert ('the most that was measured is' if target == '40x' else 'the nearest that was tried has') in text


def test_a_machine_that_is_busy_is_not_taken_for_a_slow_method(model):
    with pytest.raises(UnreachableError, match=r'times vary by \d+% here, as on a machine that is busy'):
        search(model, pictures(2), '40x', Clock(noise=0.5))


def test_pictures_with_too_few_tokens_do_not_count(model):
    images = [*pictures(3), pictures(1, (16, 16))[0]]
    found = search(model, images, '1.4x')
    assert found.chosen.unchanged == 1 and found.chosen.agreement.count == 2


def test_of_one_picture_none_is_held_out(model):
    found = search(model, pictures(1), '1.4x')
    assert found.pictures == (1, 0) and found.held_out is None and found.confirmed is None
    assert found.chosen.agreement.low == found.chosen.agreement.high


def test_what_is_wrong_is_said_at_once(model):
    training = models.vit(depth=4)
    training.train()
    for wrong, images, target, message in (
        (model, [], '2x', 'there are no pictures'),
        (model, pictures(1), 'fast', "target 'fast' must be a speed"),
        (torch.nn.Linear(2, 2).eval(), pictures(1), '2x', 'Linear has no known backbone; known are: '),
        (training, pictures(1), '2x', 'in training mode'),
    ):
        with pytest.raises(ValueError, match=message):
            search(wrong, images, target)


@pytest.mark.parametrize(
    'make, target',
    [(models.beit, '1.3x'), (models.swin, '1.2x'), (models.segmenter, '1.3x'), (lambda: tiny_timm(), '1.3x')],
)
def test_every_host_is_searched(make, target):
    """With every method, in several stages; what is chosen takes effect in each of them."""
    host = make()
    methods = tuple(Method(method.reducer, method.places) for method in tuning.METHODS)
    found = search(host, pictures(2), target, methods=methods)
    assert float(target[:-1]) <= found.chosen.speedup <= float(target[:-1]) * 1.05
    with fewtokens.attach(host, found.chosen.reducer) as attached, torch.no_grad():
        models.outputs(host, pictures(1)[0])
    assert attached.passes == 1 and '?' not in attached.summary()
    kinds = {type(trial.reducer).__name__ for trial in found.trials}
    assert kinds >= {'SharedUpdate', 'Hourglass'} and ('BipartiteMerge' in kinds) != attached.host.relative_positions


def tiny_timm():
    import timm

    return models.randomize(timm.models.VisionTransformer(64, 8, embed_dim=32, depth=6, num_heads=4, num_classes=0))


def test_names_are_plugin_texts(model):
    trial = search(model, pictures(1), '1.4x').chosen
    assert trial.name == text_of(trial.reducer) and trial.name.startswith('SharedUpdate(after=')
