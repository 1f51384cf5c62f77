"""A family of one's own, made here: nothing else of the package is changed for it."""

from dataclasses import dataclass

import pytest
import torch
from literal import merge
from torch import nn

import fewtokens
from fewtokens.hosts import FAMILIES, WholeGrid


class Block(nn.Module):
    """Takes (state, mask of keys) with tokens [B, H, W, C] in a dict, by name, and returns a tuple."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.mix, self.mlp = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, *, state, key_bias=None):
        x = state['tokens']
        tokens = x.flatten(1, -2)
        key, value = self.mix(self.norm(tokens)).chunk(2, dim=-1)
        logits = key @ key.transpose(1, 2)
        logits = logits if key_bias is None else logits + key_bias[:, None]
        tokens = tokens + logits.softmax(dim=2) @ value
        return {'tokens': (tokens + self.mlp(tokens).relu()).view(x.shape)}, 'something else'


class Backbone(nn.Module):
    def __init__(self, width=16, depth=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.stages = nn.ModuleList([Block(width) for _ in range(depth)])

    def forward(self, images):
        x = self.stem(images).permute(0, 2, 3, 1)
        for block in self.stages:
            state, _ = block(state={'tokens': x})
            x = state['tokens']
        return x


@pytest.fixture
def family():
    @fewtokens.register_host
    @dataclass(frozen=True)
    class Mine(fewtokens.Host):
        family = 'a backbone of my own'
        argument = 'state'

        @classmethod
        def find(cls, path, module, parent):
            if not isinstance(module, Backbone):
                return None
            blocks = list(module.stages)
            return cls(path, module, module.stem, blocks, taps=(len(blocks) - 1,), nominal_grid=(8, 8))

        def grid(self, args, kwargs, output):
            return tuple(output.shape[2:])

        def tokens(self, value):
            state = value[0] if isinstance(value, tuple) else value
            return state['tokens'].flatten(1, -2)

        def with_tokens(self, value, tokens, layout):
            state = {'tokens': tokens.unflatten(1, layout.grid)}
            return (state, *value[1:]) if isinstance(value, tuple) else state

        def call(self, index, forward, value, args, kwargs, context):
            return forward(state=value, key_bias=context.key_bias(value['tokens']), **kwargs)

    yield Mine
    FAMILIES.remove(Mine)


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (48, 72)])
def test_a_new_family_reduces_as_a_walk_does(family, size):
    model = nn.Sequential(Backbone(), nn.ReLU())
    images = torch.randn(2, 3, *size)
    grid = tuple(side // 8 for side in size)
    x, log_sizes = model[0].stem(images).flatten(2).transpose(1, 2), None
    for index, block in enumerate(model[0].stages):
        if index == 1:
            before = x
            x, labels, sizes = merge(before, grid, (4, 3))
            centers, log_sizes = x, sizes.log()
        x = block(state={'tokens': x}, key_bias=log_sizes)[0]['tokens']
    expected = (before + (x - centers).gather(1, labels[..., None].expand(-1, -1, 16))).unflatten(1, grid).relu()
    host = model(images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, (4, 3))) as attachment:
        torch.testing.assert_close(model(images), expected)
        assert '0: a backbone of my own, 4 blocks' in attachment.summary()
    assert torch.equal(model(images), host)
    assert '0: a backbone of my own, 4 blocks, 8 x 8 tokens' in fewtokens.supported(model)


def test_what_is_no_family_is_refused(family):
    with pytest.raises(ValueError, match="there is a host family 'a backbone of my own' already"):
        fewtokens.register_host(type('Again', (fewtokens.Host,), dict(family=family.family)))
    with pytest.raises(ValueError, match=r'must be a subclass of fewtokens\.Host with a family of its own'):
        fewtokens.register_host(type('Nameless', (fewtokens.Host,), {}))
    with pytest.raises(ValueError, match=r'must be a subclass of fewtokens\.Host'):
        fewtokens.register_host(Backbone)
    with pytest.raises(ValueError, match='known are: .*a backbone of my own'):
        fewtokens.attach(nn.Linear(2, 2), fewtokens.SharedUpdate(1, 2))


def test_layouts_say_how_many_tokens_there_are():
    assert WholeGrid(5, (3, 4)).count == 17
