"""Tokens that are whole again before the backbone ends."""

import pytest
import timm
import torch
from models import segmenter, swin, vit

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0, until=4),
    fewtokens.SharedUpdate((1, 2), (6, 4), until=4),
    fewtokens.BipartiteMerge((1, 2), 10, until=4),
    fewtokens.AvgPool(2, 4, until=4),
]


@torch.no_grad()
@pytest.mark.parametrize('reducer', REDUCERS, ids=lambda reducer: type(reducer).__name__)
def test_later_blocks_work_on_what_a_shorter_backbone_would_have_returned(reducer):
    torch.manual_seed(0)
    model = timm.create_model('vit_tiny_patch16_224', depth=6, img_size=128, num_classes=0).eval()
    images = torch.randn(2, 3, 128, 128)
    with fewtokens.attach(model, reducer) as attachment:
        given = model.forward_features(images)
        tokens = attachment.token_counts
    # The same reducer to the end of a backbone that has no more blocks.
    blocks, norm = model.blocks, model.norm
    model.blocks, model.norm = blocks[:4], torch.nn.Identity()
    with fewtokens.attach(model, reducer):
        half = model.forward_features(images)
    torch.testing.assert_close(given, norm(blocks[5](blocks[4](half))), rtol=1e-4, atol=1e-4)
    assert tokens[0] == 64 and tokens[1] < 64


@torch.no_grad()
def test_outputs_before_and_after_that_place_are_whole():
    torch.manual_seed(0)
    model = vit(out_indices=(1, 2, 3, 5))
    images = torch.randn(1, 3, 64, 64)
    reducer = fewtokens.SharedUpdate(2, 4, until=4)
    with fewtokens.attach(model, reducer):
        outputs = model(images)
    assert len({output.shape for output in outputs}) == 1
    shorter = vit(out_indices=(1, 2, 3))
    shorter.load_state_dict(model.state_dict())
    with fewtokens.attach(shorter, fewtokens.SharedUpdate(2, 4)):
        for one, other in zip(outputs, shorter(images), strict=False):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_head_gets_all_tokens_then():
    model = segmenter()
    seen = []
    model.decode_head.dec_proj.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    images = torch.randn(1, 3, 64, 64)
    for until in ('auto', 5):
        with fewtokens.attach(model, fewtokens.Hourglass(2, 4, until=until)):
            model(images)
    assert seen[0] == 16 and seen[1] > 16


@pytest.mark.parametrize('reducer', [fewtokens.Hourglass, fewtokens.SharedUpdate, fewtokens.AvgPool])
def test_places_that_do_not_fit_are_named(reducer):
    with pytest.raises(ValueError, match='until=2 must be a number of blocks above 2'):
        reducer(2, 4, until=2)
    with pytest.raises(ValueError, match="until='middle' must be one of .*'backbone', or a number of blocks"):
        reducer(2, 4, until='middle')
    with pytest.raises(ValueError, match='until=9 must be at most 6'):
        fewtokens.attach(vit(), reducer(2, 4, until=9))


@torch.no_grad()
def test_in_windows_it_lies_within_the_stage():
    model = swin()
    host = fewtokens.hosts.find_hosts(model)[0]
    last = next(i for i in range(len(host.blocks)) if host.region_end(i) - i > 1)
    end = host.region_end(last)
    with pytest.raises(ValueError, match=f'until={end + 1} must be at most {end}'):
        fewtokens.attach(model, fewtokens.Hourglass(last, 2, until=end + 1))
    with fewtokens.attach(model, fewtokens.Hourglass(last, 2, until=last + 1)) as attachment:
        model(torch.randn(1, 3, 64, 64))
    assert attachment.passes == 1
