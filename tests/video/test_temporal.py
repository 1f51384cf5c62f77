import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from fewtokens.video import SeqTransf


def by_hand(model, x, mask):
    """CLIP4Clip's seqTransf: positions, CLIP's pre-norm blocks on the real frames, and the frames added."""
    out = torch.zeros_like(x)
    for i, real in enumerate(mask):
        y = (x[i] + model.positions[: x.shape[1]])[real]
        for layer in model.layers:
            attention = layer.self_attn
            q, k, v = F.linear(layer.norm1(y), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=1)
            heads = [part.unflatten(1, (attention.num_heads, -1)).transpose(0, 1) for part in (q, k, v)]
            mixed = F.scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1)
            y = y + attention.out_proj(mixed)
            hidden = layer.linear1(layer.norm2(y))
            y = y + layer.linear2(hidden * torch.sigmoid(1.702 * hidden))
        out[i, real] = x[i, real] + y
    return out


@pytest.mark.parametrize('training', [True, False])
def test_equals_its_definition(training):
    model = SeqTransf(16, layers=2, heads=2).train(training)
    torch.nn.init.normal_(model.positions)
    x = torch.randn(3, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    assert torch.allclose(model(x, mask)[mask], by_hand(model, x, mask)[mask], atol=1e-5)
    assert torch.allclose(model(x), by_hand(model, x, torch.ones_like(mask)), atol=1e-5)


def test_order_matters_and_padding_does_not():
    model = SeqTransf(16, layers=1, heads=2).eval()
    torch.nn.init.normal_(model.positions)
    x = torch.randn(1, 5, 16)
    assert not torch.allclose(model(x).mean(dim=1), model(x.flip(1)).mean(dim=1), atol=1e-3)
    mask = torch.tensor([[True] * 3 + [False] * 2])
    x[0, 3:] = 1e3
    assert torch.allclose(model(x, mask)[:, :3], model(x[:, :3]), atol=1e-5)


def test_pickles():
    model, x = SeqTransf(16, heads=2).eval(), torch.randn(1, 3, 16)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match='width=16 must be a multiple of heads=3'):
        SeqTransf(16, heads=3)
    with pytest.raises(ValueError, match='position_std=-1 must be 0 or more'):
        SeqTransf(16, position_std=-1)
    with pytest.raises(ValueError, match='5 frames are more than max_frames=4'):
        SeqTransf(16, max_frames=4)(torch.randn(1, 5, 16))


def test_positions_start_at_their_deviation():
    assert SeqTransf(64, max_frames=64, position_std=0.5).positions.std().item() == pytest.approx(0.5, rel=0.1)
    assert SeqTransf(64, max_frames=64).positions.std().item() == pytest.approx(0.01, rel=0.1)


def test_starts_from_a_text_encoder_as_wide():
    open_clip = pytest.importorskip('open_clip')
    text = dict(context_length=6, vocab_size=50, width=32, heads=2, layers=2)
    vision = dict(layers=1, width=32, head_width=16, patch_size=8, image_size=32)
    clip = open_clip.CLIP(32, vision, text, quick_gelu=True).eval()
    model, x = SeqTransf(32, layers=2, heads=2, max_frames=8).eval(), torch.randn(2, 5, 32)
    assert model.start_from_text(clip)
    # The text encoder itself, without its causal mask; its norms add 1e-5 to the variance, CLIP4Clip's 1e-12.
    expected = x + clip.transformer(x + clip.positional_embedding[:5])
    assert torch.allclose(model(x), expected, atol=1e-3)
    before = copy.deepcopy(model.state_dict())
    wider = SeqTransf(64, layers=2, heads=2)
    assert not wider.start_from_text(clip) and not model.start_from_text(torch.nn.Identity())
    clip.token_embedding.weight.data.zero_(), clip.positional_embedding.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
