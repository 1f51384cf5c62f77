import pytest
import torch
from torch import nn

from fewtokens.ops.spread import activate_members


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
