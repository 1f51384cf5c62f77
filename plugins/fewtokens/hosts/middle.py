"""The place between a block's attention and its MLP, where tokens can be merged without touching the block's code."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .replaced import ReplacedCall


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

    def mean_keys(self, normed: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, D]: the mean over heads of the keys that attention makes of its input.

        One projection by the mean of the heads' weights, so that keys aren't computed a second time.
        """
        weight, bias = (self._of_keys(path) for path in (self.weight, self.bias))
        return F.linear(normed, weight, bias)

    def _of_keys(self, path: str) -> Tensor | None:
        *modules, name = path.split('.')
        value = getattr(self.attention.get_submodule('.'.join(modules)), name)
        return None if value is None else value.chunk(3)[1].unflatten(0, (self.attention.num_heads, -1)).mean(dim=0)


@dataclass
class MergeInside:
    """Stands in for the calls of a block's parts: its MLP works on merged tokens, and returns them for all.

    What the MLP adds to all tokens of a group is the same, and to their mean too: so the block's output is merged after
    it, and nothing between is lost.

    Attributes:
        parts: of the block.
        compare: told of the mean keys of the block's tokens, before attention.
        merge: the block's tokens between attention and MLP -> fewer.
        expand: the MLP's output for those -> for all.
    """

    parts: Middle
    compare: Callable[[Tensor], None]
    merge: Callable[[Tensor], Tensor]
    expand: Callable[[Tensor], Tensor]

    def place(self) -> list[ReplacedCall]:
        parts = self.parts
        return [
            ReplacedCall(parts.norm, self._norm),
            ReplacedCall(parts.mlp_norm, self._mlp_norm),
            ReplacedCall(parts.mlp, self._mlp),
        ]

    def _norm(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        normed = forward(tokens)
        self.compare(self.parts.mean_keys(normed))
        return normed

    def _mlp_norm(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        return forward(self.merge(tokens))

    def _mlp(self, module: nn.Module, forward: Callable, tokens: Tensor) -> Tensor:
        return self.expand(forward(tokens))
