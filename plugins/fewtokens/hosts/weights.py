"""Weights as numbers, however a model keeps them."""

from typing import Any

import torch
from torch import Tensor

NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def as_numbers(weight: Any) -> Tensor | None:
    """A weight of a linear layer that may be quantised: as it is, or what it stands for, or None where that's unknown.

    Tensors of libraries that quantise have a `dequantize` of their own. Bytes, and numbers of 8 bits, whose scale
    stands somewhere else, say nothing.
    """
    if not isinstance(weight, Tensor) or weight.dtype not in NUMBERS:
        return None
    if type(weight).dequantize is Tensor.dequantize:
        return weight
    try:
        return weight.dequantize()
    except TypeError:  # A function of that name which takes something else, as torchao's NF4Tensor has.
        return None
