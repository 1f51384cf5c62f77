import pytest
import torch
from torch.nn import functional as F

from fewtokens.hosts.attention import key_mask
from fewtokens.measure.gpu.attention import channel_attention


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize('width', [1, 6, 32, 64, 80])
def test_a_bias_in_channels_is_one_in_a_mask(dtype, tolerance, width):
    q, k, v = torch.randn(3, 2, 3, 17, width).to(dtype)
    bias = torch.randint(0, 5, (2, 17)).float().log()
    bias[:, 0] = 0
    assert bias.min() == -torch.inf
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), key_mask(bias.double()))
    given = channel_attention(q, k, v, bias)
    assert given.dtype == dtype
    assert (given.double() - expected).norm() < tolerance * expected.norm()


def test_the_channels_keep_a_bias_that_bfloat16_would_round():
    q, k = torch.zeros(2, 1, 1, 2, 64, dtype=torch.bfloat16)
    bias = torch.tensor([[0.0, 5.0103]])
    v = torch.tensor([0.0, 1.0], dtype=torch.bfloat16)[None, None, :, None].expand(1, 1, 2, 64)
    assert channel_attention(q, k, v, bias)[0, 0, 0, 0] == torch.tensor(5.0103).sigmoid().bfloat16()
