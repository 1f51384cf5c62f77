import numpy as np
import pytest
import torch

from fewtokens.ops import dense, merge_pairs


@pytest.mark.parametrize('op', [merge_pairs, dense.merge_pairs])
def test_published_merge(golden, op):
    meta, stored = golden['tome61']
    x = torch.from_numpy(np.random.RandomState(meta['seed']).standard_normal(meta['shape']).astype(np.float32))
    merged, labels, sizes = op(x, meta['r'], int(meta['class_token']))
    torch.testing.assert_close(merged, stored['merged'])
    assert torch.equal(sizes, stored['size'][..., 0].float())
    torch.testing.assert_close(merged.gather(1, labels[..., None].expand_as(x)), stored['unmerged'])


@pytest.mark.parametrize('n, r, prefix', [(20, 3, 0), (21, 10, 0), (21, 4, 1), (24, 5, 3), (9, 0, 0), (5, 2, 1)])
def test_batched_equals_dense(n, r, prefix):
    x, sizes = torch.randn(2, n, 6), torch.randint(1, 4, (2, n)).float()
    for given, expected in zip(merge_pairs(x, r, prefix, sizes), dense.merge_pairs(x, r, prefix, sizes)):
        torch.testing.assert_close(given, expected)


def test_tokens_may_be_compared_by_something_else():
    x, keys = torch.randn(2, 20, 6), torch.randn(2, 20, 3)
    for given, expected in zip(merge_pairs(x, 7, metric=keys), dense.merge_pairs(x, 7, metric=keys)):
        torch.testing.assert_close(given, expected)
    assert torch.equal(merge_pairs(x, 7, metric=keys)[1], merge_pairs(keys, 7)[1])


def test_prefix_tokens_stay_as_they_are():
    x = torch.randn(2, 21, 6)
    merged, labels, sizes = merge_pairs(x, 8, 3)
    for token in range(3):
        place = labels[:, token, None]
        assert (sizes.gather(1, place) == 1).all()
        assert torch.equal(merged.gather(1, place[..., None].expand(-1, 1, 6))[:, 0], x[:, token])


@pytest.mark.parametrize('r, prefix', [(11, 0), (-1, 0), (1, 21), (10, 2)])
def test_bad_settings_are_named(r, prefix):
    with pytest.raises(ValueError, match=f'r={r}'):
        merge_pairs(torch.randn(2, 21, 6), r, prefix)


def test_non_finite_tokens_end_well():
    x = torch.randn(1, 20, 4)
    x[0, 4] = float('nan')
    _, labels, _ = merge_pairs(x, 6)
    assert labels.min() >= 0 and labels.max() == 13
