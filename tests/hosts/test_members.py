"""Means over the tokens that reduced ones stand for."""

import torch

from fewtokens.hosts import Members


def test_a_cluster_of_one_token_has_exactly_its_value():
    values, labels = torch.randn(1, 6, 3), torch.stack([torch.randperm(6) for _ in range(4)])
    means = Members(labels, 6, (2, 3), (2, 3)).mean(values)
    assert torch.equal(means.gather(1, labels[..., None].expand(-1, -1, 3)), values.expand(4, -1, -1))


def test_stages_count_every_token_of_the_image_once():
    values = torch.randn(2, 6, 3)
    first = Members(torch.tensor([[0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 1, 2]]), 3, (2, 3), (1, 3))
    second = Members(torch.tensor([[0, 0, 1], [1, 0, 0]]), 2, (1, 3), (1, 2), first)
    expected = torch.stack(
        [
            torch.stack([values[0, :4].mean(0), values[0, 4:].mean(0)]),
            torch.stack([values[1, 1:].mean(0), values[1, 0]]),
        ]
    )
    torch.testing.assert_close(second.mean(values), expected)


def test_a_cluster_without_members_has_its_place_on_the_grid():
    values = torch.arange(8.0).view(1, 8, 1)
    labels = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 3]])
    means = Members(labels, 4, (2, 4), (2, 2)).mean(values)
    assert means.flatten().tolist() == [3.0, 2.5, 4.5, 7.0]
    # One that stands for nothing but such a cluster, too.
    again = Members(torch.tensor([[0, 1, 0, 0]]), 2, (2, 2), (1, 2), Members(labels, 4, (2, 4), (2, 2)))
    assert again.mean(values).flatten().tolist() == [3.5, 4.75]
    assert Members(labels, 4, None, None).mean(values).flatten().tolist() == [3.0, 0.0, 0.0, 7.0]


def test_what_is_made_of_the_same_values_is_made_once():
    members, calls = Members(torch.zeros(1, 4, dtype=torch.int64), 1, (2, 2), (1, 1)), []

    def make(values, of):
        calls.append(values)
        return of.mean(values)

    first, second = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    assert members.once(make, first) is members.once(make, first) and len(calls) == 1
    assert torch.equal(members.once(make, second), members.mean(second)) and len(calls) == 2
    learned = first.requires_grad_()
    assert members.once(make, learned).requires_grad and members.once(make, learned).requires_grad and len(calls) == 4


def test_means_of_half_precision_are_taken_in_single():
    values = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    labels = torch.zeros(1, 4096, dtype=torch.int64)
    means = Members(labels, 1, (64, 64), (1, 1)).mean(values)
    assert means.dtype == torch.bfloat16 and means.item() == 1.0
