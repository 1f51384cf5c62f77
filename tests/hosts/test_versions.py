"""Libraries of another version than hosts are known of."""

import pytest
import timm
import torch
from transformers_models import build

import fewtokens
from fewtokens.hosts import versions

VIT = dict(img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=0)


class Own(timm.models.VisionTransformer):
    """A user's subclass."""


@pytest.mark.parametrize(
    'make, name, old, new',
    [
        (lambda: Own(**VIT), 'timm', '1.0.15', '1.0.16'),
        (lambda: timm.models.Eva(**VIT), 'timm', '0.9.16', '1.1.0.dev0'),
        (lambda: build('DINOv2'), 'transformers', '5.12.0', '5.24.0'),
    ],
)
def test_older_ones_are_refused_by_name(make, name, old, new, monkeypatch):
    model = make()
    monkeypatch.setattr(versions, 'version', {name: old}.__getitem__)
    with pytest.raises(ValueError, match=f'{name} {old} builds {type(model).__name__} differently.* or newer fits'):
        fewtokens.attach(model, fewtokens.SharedUpdate(1, 3))
    monkeypatch.setattr(versions, 'version', {name: new}.__getitem__)
    fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)).remove()


def test_older_ones_may_lack_what_is_looked_for(monkeypatch):
    """Other errors stay what they are."""
    model = timm.models.Beit(**VIT)
    del model.num_prefix_tokens
    with pytest.raises(AttributeError, match='num_prefix_tokens'):
        fewtokens.supported(model)
    monkeypatch.setattr(versions, 'version', {'timm': '0.6.13'}.__getitem__)
    with pytest.raises(ValueError, match='timm 0.6.13 builds Beit differently .*: timm 1.0.16 or newer fits'):
        fewtokens.supported(model)


def test_a_version_is_numbers():
    assert versions.release('2.14.1+cu130') == (2, 14, 1) and versions.release('5.24.0.dev0') == (5, 24, 0)
    assert versions.TORCH == versions.release(torch.__version__) >= (2, 4)
