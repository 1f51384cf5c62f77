import models
import pytest
import torch
from models import IMAGES

import fewtokens
from fewtokens.hosts import find_hosts
from fewtokens.measure.agreement import cosine, final_tokens


def call(model, images):
    return model(images)


def test_the_outputs_of_a_backbone_are_compared_without_class_tokens():
    model = models.vit(out_indices=(1, 5), output_cls_token=True, out_origin=False)
    (host,) = find_hosts(model)
    tokens = final_tokens(host, model, IMAGES, call)
    with torch.no_grad():
        maps = [output[0] for output in model(IMAGES)]
    assert len(tokens) == 2
    assert all(torch.equal(a, b.flatten(2).transpose(1, 2)) for a, b in zip(tokens, maps))


def test_tokens_behind_the_norm_are_compared_where_any_block_may_be_asked_for():
    import timm

    model = models.randomize(
        timm.models.VisionTransformer(64, 8, embed_dim=32, depth=4, num_heads=4, num_classes=5, reg_tokens=2)
    )
    (host,) = find_hosts(model)
    with torch.no_grad():
        expected = model.forward_features(IMAGES)[:, 3:]
    (tokens,) = final_tokens(host, model, IMAGES, call)
    assert torch.equal(tokens, expected)
    for reducer in (fewtokens.SharedUpdate(1, 4), fewtokens.Hourglass(1, 4)):
        with fewtokens.attach(model, reducer), torch.no_grad():
            (reduced,) = final_tokens(host, model, IMAGES, call)
            assert torch.equal(reduced, model.forward_features(IMAGES)[:, 3:])
        assert reduced.shape == expected.shape and not torch.equal(reduced, expected)


def test_no_hook_is_left_on_a_model():
    model = models.vit()
    before = models.snapshot(model)
    with pytest.raises(RuntimeError):
        final_tokens(find_hosts(model)[0], model, torch.zeros(1, 4, 64, 64), call)
    assert models.snapshot(model) == before


def test_the_output_that_agrees_least_counts():
    a = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    b = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]])
    assert cosine([a], [a]) == 1 and cosine([a], [b]) == 0.5 and cosine([a, a], [a, b]) == 0.5
    assert cosine([a], [a * torch.nan]) == -1
