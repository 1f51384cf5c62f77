"""Copies of attached models, and half precision: the same of every host."""

import copy
import pickle

import torch

import fewtokens


def run_copies_and_half(model, images):
    """An attached model in float32, which its copies must equal, under autocast, and a copy of it in bfloat16."""
    expected = model(images)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        (other,) = fewtokens.attached(copied)
        assert torch.equal(copied(images), expected)
        other.remove()
    with torch.autocast('cpu', torch.bfloat16):
        mixed = model(images).float()
    return expected, mixed, copy.deepcopy(model).bfloat16()(images.bfloat16()).float()
