"""Multiply-accumulate operations of a forward pass."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def forward(model: nn.Module, inputs: Tensor) -> Any:
    """The network's raw outputs: OpenMMLab's models by their mode for it, others by a call."""
    modules = {cls.__module__ for cls in type(model).__mro__}
    if 'mmengine.model.base_model.base_model' not in modules:
        return model(inputs)
    if 'mmdet.models.detectors.base' in modules:
        return model(inputs, _samples('mmdet', 'DetDataSample', inputs), mode='tensor')
    if 'mmdet.models.mot.base' in modules:
        # Such models have no mode for raw outputs, and take one video at a time; images are the frames of one.
        return [_track(model, video) for video in (inputs if inputs.ndim == 5 else inputs[None])]
    if hasattr(getattr(model, 'decode_head', None), 'num_queries'):
        # mmseg's mode for raw outputs lacks what heads with queries need.
        return model(inputs, _samples('mmseg', 'SegDataSample', inputs), mode='predict')
    return model(inputs, mode='tensor')


def _track(model: nn.Module, frames: Tensor) -> Any:
    if getattr(model, 'detector', None) is not None:
        return forward(model.detector, frames)
    return model.track_head(model.backbone(frames), None)


def _samples(package: str, kind: str, inputs: Tensor) -> list[Any]:
    """What a data set would say of images that fill their batch."""
    size = tuple(inputs.shape[2:])
    known = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    cls = getattr(importlib.import_module(f'{package}.structures'), kind)
    return [cls(metainfo=dict(known, scale_factor=(1.0, 1.0))) for _ in inputs]


@torch.no_grad()
def count_macs(model: nn.Module, inputs: Tensor, call: Callable[[nn.Module, Tensor], Any] = forward) -> int:
    """Counts multiply-accumulate operations of one forward pass, or of another call, over all of `inputs`.

    Matrix products and convolutions count, attention's and the clustering's own among them; gathers, norms and
    activations don't. Attention counts the same whether the host fuses it or not. Works on the meta device, where
    nothing is computed, for models whose shapes don't depend on what they see.
    """
    with counting_macs() as count:
        call(model, inputs)
        return count()


@contextmanager
def counting_macs() -> Iterator[Callable[[], int]]:
    """Gives what says how many MACs there were so far: see `count_macs`."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Fused CPU attention and the native multi-head kernel are opaque to the counter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield lambda: counter.get_total_flops() // 2
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
