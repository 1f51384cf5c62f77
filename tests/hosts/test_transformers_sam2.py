"""Hugging Face's SAM 2 encoder, whose stages pool their tokens, against a literal form."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers
from copies import run_copies_and_half
from models import randomize, snapshot
from sam_models import SAM2_WINDOWS, sam2, sam2_vision
from sam_walk import AsTimm, walk
from torch import nn

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(4, 3, iters=3, k=7, temperature=20.0), fewtokens.SharedUpdate(5, (4, 3), spread=False),
    fewtokens.SharedUpdate(4, 4), fewtokens.AvgPool(2, 2), fewtokens.SharedUpdate(6, 5, size_bias=False),
    fewtokens.SharedUpdate(0, 6), fewtokens.SharedUpdate(9, 2),
]  # fmt: skip
STAGES = (0, 1, 3, 8, 10)
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def build(**options):
    return randomize(transformers.Sam2VisionModel(sam2_vision(**options)))


@torch.no_grad()
def literal(model, images, reducer):
    """What comes into the first block and out of each, whole."""
    backbone = copy.deepcopy(model.backbone)
    x = backbone.patch_embed(images)
    x = x + backbone._get_pos_embed(x.shape[1:3])
    blocks, states = list(backbone.blocks), [x]
    for stage, (first, end) in enumerate(zip(STAGES, STAGES[1:])):
        if not first <= reducer.after < end:
            for block in blocks[first:end]:
                states.append(block(states[-1]))
            continue
        named = [AsTimm(block, ('proj_in', 'proj_out'), 'activation') for block in blocks[first:end]]
        inner = replace(reducer, after=reducer.after - first)
        given = [walk(named, image, (SAM2_WINDOWS[stage],) * 2, (None, None), inner) for image in states[-1]]
        states += [torch.stack(each) for each in zip(*given, strict=True)]
    return states


@pytest.fixture(params=REDUCERS, ids=range(len(REDUCERS)))
def reducer(request):
    return request.param


@torch.no_grad()
@pytest.mark.parametrize('attention', ['sdpa', 'eager'])
def test_equals_the_literal_form(attention, reducer):
    model = build()
    model.set_attn_implementation(attention)
    host = model(IMAGES, output_hidden_states=True)
    expected, before = literal(model, IMAGES, reducer), snapshot(model)
    with fewtokens.attach(model, reducer) as attachment:
        given = model(IMAGES, output_hidden_states=True)
        for one, other in zip(given.hidden_states, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-4)
        alone = model(IMAGES)
        torch.testing.assert_close(alone.last_hidden_state, expected[-1], rtol=1e-3, atol=3e-4)
        maps, _ = model.neck([expected[end] for end in STAGES[1:]])
        for one, other in zip(alone.fpn_hidden_states, maps[-3:][::-1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(alone.last_hidden_state, host.last_hidden_state, atol=1e-4)
        assert attachment.passes == 2 and attachment.host.family == 'transformers SAM 2'
        with pytest.raises(ValueError, match='output_attentions=True asks for attention between all tokens'):
            model(IMAGES, output_attentions=True)
    assert snapshot(model) == before
    assert torch.equal(model(IMAGES).last_hidden_state, host.last_hidden_state)


@torch.no_grad()
def test_stages_that_nest_and_stages_that_follow_each_other():
    model = build()
    with fewtokens.attach(model, fewtokens.SharedUpdate((4, 6, 9), (4, 3, 2))) as attachment:
        given = model(IMAGES, output_hidden_states=True).hidden_states
        assert attachment.passes == 1
    with fewtokens.attach(model, fewtokens.SharedUpdate(4, 4)):
        once = model(IMAGES, output_hidden_states=True).hidden_states
    assert [torch.allclose(a, b, atol=1e-4) for a, b in zip(given, once)] == [True] * 7 + [False] * 4


@pytest.mark.parametrize('after, fits', [(1, 2), (3, 4), (8, 9)])
def test_blocks_that_pool_take_whole_tokens(after, fits):
    message = rf'after={after}: block {after} of Sam2HieraDetModel pools .* after={fits} fits .* blocks 0, 1, 3, 8'
    model = build()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(model, fewtokens.SharedUpdate(after, 3))
    assert snapshot(model) == before
    with pytest.raises(ValueError, match='on no grid, which the windows or relative positions of transformers SAM 2'):
        fewtokens.attach(model, fewtokens.BipartiteMerge(4, 2))


@torch.no_grad()
def test_windows_of_a_stage_that_are_small_enough_already():
    model = build()
    host = model(IMAGES).last_hidden_state
    with fewtokens.attach(model, fewtokens.SharedUpdate(9, 3)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(IMAGES).last_hidden_state, host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
def test_masks_from_prompts():
    model, images = sam2(), torch.randn(1, 3, 96, 96)
    points = torch.tensor([[[[10.0, 20.0]], [[40.0, 50.0]]]])
    host = model(images, input_points=points)
    with fewtokens.attach(model, fewtokens.SharedUpdate(4, 4)) as attachment:
        assert attachment.host.path == 'vision_encoder.backbone'
        given = model(images, input_points=points)
        features = model.get_image_embeddings(images)
        decoded = model(image_embeddings=features, input_points=points)
        torch.testing.assert_close(given.pred_masks, decoded.pred_masks)
        assert attachment.passes == 2 and given.pred_masks.shape == host.pred_masks.shape
        assert not torch.allclose(given.pred_masks, host.pred_masks, atol=1e-4)


@torch.no_grad()
def test_copies_and_half_precision():
    model = Last(build())
    with fewtokens.attach(model, fewtokens.SharedUpdate((4, 6), (4, 3))):
        expected, mixed, half = run_copies_and_half(model, IMAGES)
    for one in (mixed, half):
        assert nn.functional.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


class Last(nn.Module):
    """An encoder's last output alone."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).last_hidden_state


def test_gradients_reach_reduced_blocks():
    """transformers checkpoints no blocks of this model."""
    model = build().train()
    with fewtokens.attach(model, fewtokens.SharedUpdate((4, 6), (4, 3))):
        output = model(IMAGES).last_hidden_state
        output.square().mean().backward()
        with torch.no_grad():
            torch.testing.assert_close(model(IMAGES).last_hidden_state, output, rtol=1e-4, atol=1e-4)
    assert all(model.backbone.blocks[index].attn.qkv.weight.grad.abs().sum() > 0 for index in range(10))


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model = Last(build(blocks_per_stage=[1, 1, 2, 1], global_attention_blocks=[3]).backbone)
    with fewtokens.attach(model, fewtokens.SharedUpdate(3, 4)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
