import pytest
import torch
from torch import nn

from fewtokens.ops.spread import LayerNorm, activate_members, norm_members


@pytest.mark.parametrize('affine', [True, False])
def test_a_known_norm_gives_what_calling_it_does(affine):
    torch.manual_seed(0)
    norm = nn.LayerNorm(16, elementwise_affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 9, 16)
    x[0, 0], x[0, 1] = 0, 3.0  # padded, and the same in all channels
    apart = torch.rand(2, 9, 1)
    apart[0, :2] = 0
    called = norm_members(x, apart, norm, norm.bias)
    known = norm_members(x, apart, norm, norm.bias, LayerNorm(norm.weight, norm.bias, norm.eps))
    torch.testing.assert_close(known, called)
    torch.testing.assert_close(known[0][0, :2], norm(x)[0, :2])


@pytest.mark.parametrize('activation', [nn.GELU(), nn.ReLU(inplace=True)])
def test_an_activation_in_parts_is_that_of_the_whole(activation, monkeypatch):
    torch.manual_seed(0)
    hidden, share, weight = torch.randn(2, 5, 12), torch.rand(2, 5, 1), torch.randn(12, 8)
    expected = activate_members(hidden.clone().requires_grad_(), share, activation, weight, None)
    given = hidden.clone()
    monkeypatch.setattr('fewtokens.ops.spread.PART', 36)
    with torch.no_grad():
        torch.testing.assert_close(activate_members(given, share, activation, weight, None), expected.detach())
    assert given.equal(hidden)
