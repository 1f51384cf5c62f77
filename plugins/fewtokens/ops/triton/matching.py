"""Bipartite matching by cosine, and the merge of its pairs."""

from typing import Any

import torch
from torch import Tensor

from . import pairing


def match_pairs(*args: Any) -> Tensor:
    return (match_operation if torch.compiler.is_dynamo_compiling() else launch_match)(*args)


@torch.library.custom_op('fewtokens::match_pairs', mutates_args=())
def match_operation(metric: Tensor, r: int, num_prefix_tokens: int) -> Tensor:
    return launch_match(metric, r, num_prefix_tokens)


@match_operation.register_fake
def _(metric, r, num_prefix_tokens):
    return metric.new_empty(metric.shape[:2], dtype=torch.int64)


def launch_match(metric: Tensor, r: int, num_prefix_tokens: int, together: bool | None = None) -> Tensor:
    """As `fewtokens.ops.match_pairs`, of at least one token."""
    groups = metric.shape[1] - r
    return pairing.run(metric, groups, 2, metric, None, num_prefix_tokens, members=False, together=together).labels


def merge_pairs(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (merge_operation if torch.compiler.is_dynamo_compiling() else launch_merge)(*args)


@torch.library.custom_op('fewtokens::merge_pairs', mutates_args=())
def merge_operation(
    x: Tensor, r: int, num_prefix_tokens: int, sizes: Tensor | None, metric: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return launch_merge(x, r, num_prefix_tokens, sizes, metric)


@merge_operation.register_fake
def _(x, r, num_prefix_tokens, sizes, metric):
    batch, n_tokens, channels = x.shape
    return (
        x.new_empty((batch, n_tokens - r, channels)),
        x.new_empty((batch, n_tokens), dtype=torch.int64),
        x.new_empty((batch, n_tokens - r), dtype=torch.float32),
    )


def launch_merge(
    x: Tensor, r: int, num_prefix_tokens: int, sizes: Tensor | None, metric: Tensor, together: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `fewtokens.ops.merge_pairs`, of at least one token."""
    done = pairing.run(x, x.shape[1] - r, 2, metric, sizes, num_prefix_tokens, together=together)
    return done.means, done.labels, done.merged
