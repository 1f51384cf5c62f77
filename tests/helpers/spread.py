"""What a reducer that knows how far members lie apart does to a pre-norm block, written out."""

import torch


def shares(x, apart):
    """What part of the members' variance over channels is around their mean [..., 1], of tokens x and `apart` [...]."""
    apart = apart[..., None]
    # Padding is the same in all channels and has no variance.
    return (apart / (x.var(-1, unbiased=False, keepdim=True) + apart)).nan_to_num()


def draw_back(normed, bias, share):
    """The norm before attention, drawn back to its bias [C] or None."""
    bias = 0 if bias is None else bias
    return bias + (normed - bias) * ((1 - share) / (1 - share / 2)).sqrt()


def deviations(linear, mlp_norm, share):
    """Of the members' hidden units around those of their mean."""
    gain = linear.weight.square().sum(1).sqrt() * mlp_norm.weight.square().mean().sqrt()
    return share.sqrt() * gain


def smoothed(activation, hidden, apart):
    """The mean of an activation over two points."""
    return torch.stack([activation(hidden + apart), activation(hidden - apart)]).mean(0)


def norm(module, x, share):
    return draw_back(module(x), module.bias, share)


def mlp(block, x, share):
    """norm2 and a plain MLP whose activation is the mean over two points."""
    hidden = block.mlp.fc1(block.norm2(x))
    apart = deviations(block.mlp.fc1, block.norm2, share)
    return block.mlp.fc2(block.mlp.norm(smoothed(block.mlp.act, hidden, apart)))
