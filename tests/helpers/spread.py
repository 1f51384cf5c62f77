"""What a reducer that knows how far members lie apart does to a pre-norm block, written out."""

import torch


def shares(x, apart):
    """What part of the members' variance over channels is around their mean [..., 1], of tokens x and `apart` [...]."""
    apart = apart[..., None]
    # Padding is the same in all channels and has no variance.
    return (apart / (x.var(-1, unbiased=False, keepdim=True) + apart)).nan_to_num()


def norm(module, x, share):
    """The norm before attention, drawn back to its bias."""
    bias = 0 if module.bias is None else module.bias
    return bias + (module(x) - bias) * ((1 - share) / (1 - share / 2)).sqrt()


def mlp(block, x, share):
    """norm2 and a plain MLP whose activation is the mean over two points."""
    hidden = block.mlp.fc1(block.norm2(x))
    gain = block.mlp.fc1.weight.square().sum(1).sqrt() * block.norm2.weight.square().mean().sqrt()
    apart = share.sqrt() * gain
    both = torch.stack([block.mlp.act(hidden + apart), block.mlp.act(hidden - apart)])
    return block.mlp.fc2(block.mlp.norm(both.mean(0)))
