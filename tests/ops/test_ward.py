import pytest
import torch

from fewtokens.ops import dense, merge_nearest


@pytest.mark.parametrize(
    'n, groups', [(20, 15), (21, 7), (15, 1), (16, 16), (2, 1), (1, 1), (24, 13), (17, 3)]
)
@pytest.mark.parametrize('weighed', [False, True])
def test_equals_the_dense_form(n, groups, weighed):
    x = torch.randn(2, n, 6, dtype=torch.float64)
    sizes = torch.randint(1, 5, (2, n)).double() if weighed else None
    for given, expected in zip(merge_nearest(x, groups, sizes), dense.merge_nearest(x, groups, sizes), strict=True):
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype_layout_and_batch(dtype):
    x = torch.randn(3, 8, 30, dtype=dtype).transpose(1, 2)
    means, labels, sizes = merge_nearest(x, 11)
    assert means.dtype == dtype and means.shape == (3, 11, 8) and sizes.sum(1).tolist() == [30, 30, 30]
    for b in range(3):
        alone = merge_nearest(x[b : b + 1].contiguous(), 11)
        assert torch.equal(alone[1][0], labels[b])
        for group in range(11):
            mean = x[b, labels[b] == group].float().mean(0)
            torch.testing.assert_close(means[b, group].float(), mean, rtol=1e-2, atol=1e-2)


def test_finds_what_belongs_together():
    """Blobs of very unlike sizes."""
    kinds = torch.tensor([0] * 60 + [1] * 3 + [2] * 20 + [3])
    x = 10 * torch.randn(4, 16)[kinds] + 0.01 * torch.randn(84, 16)
    order = torch.randperm(84)
    _, labels, sizes = merge_nearest(x[order][None], 8)
    # No group is of two kinds, and the many of a kind have few groups.
    assert len({(a, b) for a, b in zip(labels[0].tolist(), kinds[order].tolist())}) == 8
    assert sizes.max() > 15


def test_gradients_are_those_of_means():
    x = torch.randn(2, 20, 5, dtype=torch.float64, requires_grad=True)
    means, labels, sizes = merge_nearest(x, 9)
    means.square().sum().backward()
    expected = (2 * means.detach() / sizes[..., None]).gather(1, labels[..., None].expand(-1, -1, 5))
    torch.testing.assert_close(x.grad, expected)


def test_non_finite_tokens_end_well():
    x = torch.randn(1, 20, 4)
    x[0, 4] = float('nan')
    _, labels, _ = merge_nearest(x, 6)
    assert labels.unique().tolist() == list(range(6))


@pytest.mark.parametrize('groups', [0, 21, -1])
def test_bad_settings_are_named(groups):
    with pytest.raises(ValueError, match=f'{groups} groups of tokens'):
        merge_nearest(torch.randn(2, 20, 6), groups)
