"""Attention whose keys weigh as much as a bias says: tokens that stand for many are attended to as often."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .backend import use_kernels

WIDTHS = range(16, 129, 8)
"""Of heads, which a kernel holds whole and reads in eights."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None = None, backend: str = 'auto'
) -> Tensor:
    """Scaled dot-product attention with one bias a key, the same for every query and head.

    PyTorch takes a bias as a mask alone, which sends it from flash attention to slower kernels. On a CUDA device, in
    half precision and without gradients, a kernel of ours takes it at about the speed of flash attention.

    Args:
        query: [B, heads, N, D].
        key: [B, heads, M, D].
        value: of the same shape.
        bias: [B, M], added to logits; minus infinity for a key not to be attended to.
        scale: of the products, 1 / sqrt(D) if left out.
        backend: 'torch', 'triton' for a kernel on a CUDA device, or 'auto': a kernel where it can run.

    Returns:
        [B, heads, N, D].

    Raises:
        ValueError: shapes don't fit.
    """
    if not (query.ndim == 4 and key.shape == value.shape == (*query.shape[:2], key.shape[2], query.shape[3])):
        raise ValueError(f'queries {tuple(query.shape)}, keys {tuple(key.shape)} and values {tuple(value.shape)}')
    if bias.shape != (key.shape[0], key.shape[2]):
        raise ValueError(f'bias {tuple(bias.shape)}: one a key is needed, {(key.shape[0], key.shape[2])}')
    if _fits(query, key, value) and use_kernels(backend, query, key, value, bias):
        from .triton import attention

        return attention.attend(query, key, value, bias, query.shape[-1] ** -0.5 if scale is None else scale)
    return F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype)[:, None, None], scale=scale)


def _fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    return (
        query.dtype == key.dtype == value.dtype
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] in WIDTHS
        and query.numel() > 0
        and key.numel() > 0
    )
