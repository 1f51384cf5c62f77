"""timm's HieraDet, SAM 2's encoder, whose stages pool their tokens, against a literal form."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from models import randomize, snapshot
from sam_walk import walk
from timm.models.hieradet_sam2 import HieraDet
from torch import nn

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(4, 3, iters=3, k=7, temperature=20.0), fewtokens.SharedUpdate(5, (4, 3)),
    fewtokens.AvgPool(2, 2), fewtokens.SharedUpdate(6, 5, size_bias=False), fewtokens.SharedUpdate(9, 2, spread=False),
]  # fmt: skip
STAGES = (0, 1, 3, 8, 10)
WINDOWS = (8, 4, 6, 3)
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(4))


def build(**options):
    """Stages of 1, 2, 5 and 2 blocks on grids of 32 x 48 to 4 x 6; of the third, blocks 5 and 7 see the whole grid."""
    settings = dict(embed_dim=8, num_heads=1, patch_kernel=(3, 3), patch_stride=(2, 2), patch_padding=(1, 1))
    settings |= dict(stages=(1, 2, 5, 2), window_spec=WINDOWS, global_att_blocks=(5, 7), num_classes=5)
    return randomize(HieraDet(**settings | options))


@torch.no_grad()
def literal(model, images, reducer):
    """What comes out of each block, whole."""
    model, states = copy.deepcopy(model), []
    x = model._pos_embed(model.patch_embed(images))
    for block in model.blocks:
        block.attn.q_norm = block.attn.k_norm = nn.Identity()
        block.attn.rope, block.attn.use_rel_pos = None, False
        block.window_size = block.window_size if block.is_windowed else None
    for stage, (first, end) in enumerate(zip(STAGES, STAGES[1:])):
        blocks = model.blocks[first:end]
        if first <= reducer.after < end:
            inner = replace(reducer, after=reducer.after - first)
            given = [walk(blocks, image, (WINDOWS[stage],) * 2, (None, None), inner) for image in x]
            states += [torch.stack(each) for each in zip(*given, strict=True)]
            x = states[-1]
            continue
        for block in blocks:
            x = block(x)
            states.append(x)
    return states


@pytest.fixture(params=REDUCERS, ids=range(len(REDUCERS)))
def reducer(request):
    return request.param


@torch.no_grad()
def test_equals_the_literal_form(reducer):
    model = build(init_values=0.5)
    host, before, expected = model(IMAGES), snapshot(model), literal(model, IMAGES, reducer)
    with fewtokens.attach(model, reducer) as attachment:
        final, given = model.forward_intermediates(IMAGES, coarse=False, output_fmt='NHWC')
        for one, other in zip(given, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-4)
        torch.testing.assert_close(model.forward_features(IMAGES), final)
        coarse = model.forward_intermediates(IMAGES, intermediates_only=True, output_fmt='NHWC')
        for one, end in zip(coarse, STAGES[1:], strict=True):
            torch.testing.assert_close(one, given[end - 1])
        logits = model(IMAGES)
        assert logits.shape == host.shape and not torch.allclose(logits, host, atol=1e-4)
        assert attachment.passes == 4 and attachment.host.family == 'timm HieraDet'
    assert snapshot(model) == before and torch.equal(model(IMAGES), host)


def test_checkpointing_trains_as_without():
    gradients = []
    for checkpointing in (False, True):
        model = build().train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, fewtokens.SharedUpdate((4, 6, 9), (4, 3, 2))):
            model(IMAGES).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0]['blocks.6.attn.qkv.weight'].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


def test_blocks_that_pool_take_whole_tokens():
    message = r'after=3: block 3 of HieraDet pools .* after=4 fits .* stages begin at blocks 0, 1, 3, 8'
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(build(), fewtokens.SharedUpdate(3, 3))


@torch.no_grad()
@pytest.mark.parametrize('name', timm.list_models(module='hieradet_sam2'))
def test_every_name(name):
    """With their own stages and windows, narrow: an extractor of features, and a model without its last stage."""
    options = dict(embed_dim=8, num_heads=1)
    images = torch.randn(1, 3, 256, 256)
    extractor = timm.create_model(name, features_only=True, **options).eval()
    model = timm.create_model(name, **options).eval()
    model.prune_intermediate_layers([2])
    (host,) = fewtokens.hosts.find_hosts(model)
    after = host.ends[1] + 2
    for each in (extractor, model):
        host = each(images)
        with fewtokens.attach(each, fewtokens.SharedUpdate(after, 5)) as attachment:
            given = each(images)
            assert attachment.passes == 1 and attachment.skipped == 0
        host, given = (value if isinstance(value, list) else [value] for value in (host, given))
        assert [one.shape for one in given] == [one.shape for one in host]
        assert not torch.equal(given[-1], host[-1])


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model = build(stages=(1, 1, 3, 1), global_att_blocks=(4,))
    with fewtokens.attach(model, fewtokens.SharedUpdate(3, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
