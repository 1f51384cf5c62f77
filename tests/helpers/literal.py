"""What blocks do with tokens that stand for many, written out."""

from contextlib import contextmanager

from spread import deviations, draw_back, shares, smoothed
from torch.nn import functional as F

from fewtokens.ops import dense


def merge(x, grid, clusters, sizes=None):
    """SharedUpdate's tokens [B, M, C], labels and sizes, by the dense forms."""
    means, labels, merged = dense.merge_tokens(x, grid, clusters, sizes=sizes)
    factors, _ = dense.lengthen_means(x, labels, means, merged, sizes)
    return means * factors, labels, merged


def add_spreads(reduced, sizes, outer):
    """[B, M]: how far all members lie apart, those of the members too; None if the method leaves it out."""
    if reduced.spreads is None or outer is None:
        return reduced.spreads
    total = reduced.spreads.clone()
    for b, labels in enumerate(reduced.labels):
        for m in labels.unique():
            members = labels == m
            total[b, m] += (outer[b, members] * sizes[b, members]).sum() / sizes[b, members].sum().clamp_min(1e-9)
    return total


@contextmanager
def spread(norm, mlp_norm, linear, activation, apart):
    """Within it a block's norm and activation know how far members lie apart, [B, tokens] as the block's input lies.

    `linear` and `activation` are None for a block whose MLP has a gate; `apart` is None where nothing is told.
    """
    share = []

    def correct(module, args, output):
        share[:] = [shares(args[0], apart)]
        return draw_back(output, module.bias, *share)

    def smooth(module, args, output):
        own = type(module).forward.__get__(module)
        return smoothed(own, args[0], deviations(linear, mlp_norm, *share))

    handles = []
    if apart is not None:
        handles.append(norm.register_forward_hook(correct))
        if activation is not None:
            handles.append(activation.register_forward_hook(smooth))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_prefix(apart, prefix):
    return None if apart is None else F.pad(apart, (prefix, 0))
