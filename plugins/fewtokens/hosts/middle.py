"""The place between a block's attention and its MLP, where tokens can be merged without touching the block's code."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .weights import as_numbers


@dataclass(frozen=True)
class Middle:
    """The parts of a pre-norm block whose calls lie around that place.

    Attributes:
        norm: before attention.
        attention: has one projection for queries, keys and values, in this order, and `num_heads`.
        weight, bias: names of that projection's parameters in it; a bias may be None.
        mlp_norm: before the MLP.
        mlp: what it returns is added to the block's tokens, after nothing but a scale for each channel.
    """

    norm: nn.Module
    attention: nn.Module
    weight: str
    bias: str
    mlp_norm: nn.Module
    mlp: nn.Module

    @property
    def reads_weights(self) -> bool:
        """Whether the projection's weights are numbers that can be read, as quantised ones aren't."""
        return as_numbers(self._parameter(self.weight)) is not None

    def mean_keys(self, normed: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, D]: the mean over heads of the keys that attention makes of its input.

        One projection by the mean of the heads' weights, so that keys aren't computed a second time.

        Raises:
            ValueError: the weights were quantised since.
        """
        if not self.reads_weights:
            raise ValueError(
                "the weights of attention's keys were quantised since a method that reads them was attached"
            )
        weight, bias = (self._of_keys(path) for path in (self.weight, self.bias))
        return F.linear(normed, weight, bias)

    def _of_keys(self, path: str) -> Tensor | None:
        value = as_numbers(self._parameter(path))
        return None if value is None else value.chunk(3)[1].unflatten(0, (self.attention.num_heads, -1)).mean(dim=0)

    def _parameter(self, path: str) -> Any:
        *modules, name = path.split('.')
        return getattr(self.attention.get_submodule('.'.join(modules)), name)
