import pytest
import torch

from fewtokens.ops import dense, merge_tokens
from fewtokens.ops.shared_update import lengthen_means


@pytest.mark.parametrize('clusters', [(5, 7), (17, 23), (1, 1), (16, 9)])
@pytest.mark.parametrize('iters', [0, 1, 3])
@pytest.mark.parametrize('weighted', [False, True])
def test_windowed_equals_dense(features, clusters, iters, weighted):
    x = features(3, (2, 17, 23, 16))
    sizes = torch.randint(0, 4, (2, 17 * 23)).float() if weighted else None
    for given, expected in zip(
        merge_tokens(x, (17, 23), clusters, iters, sizes=sizes),
        dense.merge_tokens(x, (17, 23), clusters, iters, sizes=sizes),
    ):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_sizes_add_up_and_means_are_of_members(features):
    x = features(4, (2, 12, 10, 8))
    means, labels, sizes = merge_tokens(x, (12, 10), (4, 5))
    assert torch.equal(sizes.sum(1), torch.full((2,), 120.0))
    for sample in range(2):
        for center in range(20):
            members = labels[sample] == center
            assert sizes[sample, center] == members.sum()
            if members.any():
                torch.testing.assert_close(means[sample, center], x[sample, members].mean(0), rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch(features):
    x = features(5, (3, 12, 12, 8))
    x[1] *= 10
    together = merge_tokens(x, (12, 12), (5, 5))
    alone = merge_tokens(x[2:], (12, 12), (5, 5))
    for whole, part in zip(together, alone):
        torch.testing.assert_close(whole[2:], part, rtol=1e-5, atol=1e-6)


def test_gradients_equal_the_dense_ones():
    x = torch.randn(2, 35, 4, dtype=torch.float64, requires_grad=True)
    out = torch.randn(2, 12, 4, dtype=torch.float64)
    sizes = torch.randint(0, 2, (2, 35)).double()
    gradients = []
    for op in (merge_tokens, dense.merge_tokens):
        gradients += torch.autograd.grad((op(x, (5, 7), (3, 4), sizes=sizes)[0] * out).sum(), x)
    assert gradients[0].isfinite().all()
    torch.testing.assert_close(*gradients)


def test_equal_tokens_end_well():
    means, labels, sizes = merge_tokens(torch.ones(1, 30, 4), (5, 6), (2, 3))
    assert means.isfinite().all() and sizes.sum() == 30


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_tokens_end_well(value):
    x = torch.randn(2, 63, 8)
    x[0, 5] = value
    means, labels, sizes = merge_tokens(x, (7, 9), (3, 4))
    assert labels.min() >= 0 and labels.max() < 12 and sizes.isfinite().all() and means[1].isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_counts_exactly(dtype):
    means, _, sizes = merge_tokens(torch.randn(1, 40 * 40, 4).to(dtype), (40, 40), (1, 1))
    assert means.dtype == dtype and sizes.dtype == torch.float32 and sizes.item() == 1600


@pytest.mark.parametrize('weighted', [False, True])
def test_lengths_and_spreads_equal_the_dense_ones(features, weighted):
    x = features(6, (2, 9, 11, 16))
    sizes = torch.randint(0, 3, (2, 99)).float() if weighted else None
    means, labels, merged = merge_tokens(x, (9, 11), (4, 5), sizes=sizes)
    given = lengthen_means(x, labels, means, merged, sizes)
    for one, expected in zip(given, dense.lengthen_means(x, labels, means, merged, sizes), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)
    assert (given[0] >= 1 - 1e-6).all() and (given[1] >= 0).all()


def test_a_group_of_equal_or_no_members_is_neither_longer_nor_spread():
    x = torch.zeros(1, 4, 3)
    x[0, 2:] = torch.tensor([1.0, 2, 3])
    labels = torch.tensor([[0, 0, 1, 1]])
    means, merged = torch.stack([x[0, 0], x[0, 2], torch.ones(3)])[None], torch.tensor([[2.0, 2, 0]])
    factors, spreads = lengthen_means(x, labels, means, merged)
    torch.testing.assert_close(factors, torch.ones(1, 3, 1))
    torch.testing.assert_close(spreads, torch.zeros(1, 3))
