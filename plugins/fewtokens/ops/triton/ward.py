"""GradualUpdate: groups that grow by merging the pairs that lose least."""

from typing import Any

import torch
from torch import Tensor

from . import pairing


def merge_nearest(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (merge_operation if torch.compiler.is_dynamo_compiling() else launch_merge)(*args)


def merge_lengthened(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (lengthened_operation if torch.compiler.is_dynamo_compiling() else launch_lengthened)(*args)


@torch.library.custom_op('fewtokens::merge_nearest', mutates_args=())
def merge_operation(x: Tensor, n_groups: int, part: int, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return launch_merge(x, n_groups, part, sizes)


@merge_operation.register_fake
def _(x, n_groups, part, sizes):
    return (
        x.new_empty((x.shape[0], n_groups, x.shape[2])),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty((x.shape[0], n_groups), dtype=torch.float32),
    )


@torch.library.custom_op('fewtokens::merge_nearest_lengthened', mutates_args=())
def lengthened_operation(
    x: Tensor, n_groups: int, part: int, sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return launch_lengthened(x, n_groups, part, sizes)


@lengthened_operation.register_fake
def _(x, n_groups, part, sizes):
    return (
        x.new_empty((x.shape[0], n_groups, x.shape[2])),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        x.new_empty((x.shape[0], n_groups), dtype=torch.float32),
        x.new_empty((x.shape[0], n_groups), dtype=torch.float32),
    )


def launch_merge(
    x: Tensor, n_groups: int, part: int, sizes: Tensor | None, together: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `fewtokens.ops.merge_nearest`, to fewer groups than tokens."""
    done = pairing.run(x, n_groups, part, sizes=sizes, together=together)
    return done.means, done.labels, done.merged


def launch_lengthened(
    x: Tensor, n_groups: int, part: int, sizes: Tensor | None, together: bool | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `fewtokens.ops.ward.merge_nearest_lengthened`, to fewer groups than tokens."""
    done = pairing.run(x, n_groups, part, sizes=sizes, lengthen=True, together=together)
    return done.means, done.labels, done.merged, done.spreads
