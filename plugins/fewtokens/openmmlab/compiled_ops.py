"""Stands in for mmcv's compiled ops where mmcv was installed without them (a plain pip install has none)."""

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

import torch
from torch import Tensor


def provide_compiled_ops() -> bool:
    """Makes `mmcv.ops` importable without mmcv's own extension; says whether the stand-in is what is used.

    NMS and RoIAlign (average mode, forward and backward) come from torchvision. Every other op can be imported and
    raises a `NotImplementedError` that names it when it is called. An mmcv with its own extension is left alone.
    """
    if importlib.util.find_spec('mmcv') is None:
        return False
    if 'mmcv._ext' in sys.modules:
        return getattr(sys.modules['mmcv._ext'], 'is_fewtokens_stand_in', False)
    if importlib.util.find_spec('mmcv._ext') is not None:
        return False
    module = types.ModuleType('mmcv._ext', provide_compiled_ops.__doc__)
    module.__spec__ = ModuleSpec('mmcv._ext', loader=None)
    vars(module).update(
        is_fewtokens_stand_in=True,
        nms=_nms,
        roi_align_forward=_roi_align_forward,
        roi_align_backward=_roi_align_backward,
        get_compiler_version=_version,
        get_compiling_cuda_version=_version,
        __getattr__=_missing,
    )
    sys.modules['mmcv._ext'] = module
    return True


def _version() -> str:
    return 'none: mmcv has no compiled ops here'


def _missing(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def op(*args, **kwargs):
        raise NotImplementedError(
            f"mmcv's op {name!r} needs mmcv's compiled extension, which this installation of mmcv lacks; "
            'build mmcv with MMCV_WITH_OPS=1, or use a model without this op'
        )

    return op


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    from torchvision.ops import nms

    # offset 1 counts pixels: a box from 0 to 9 is 10 wide. torchvision measures from edge to edge.
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1).float()
    return nms(boxes, scores.float(), iou_threshold)


def _roi_align_forward(
    input,
    rois,
    output,
    argmax_y,
    argmax_x,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
) -> None:
    from torchvision.ops import roi_align

    _check_average(pool_mode)
    size = (aligned_height, aligned_width)
    # torchvision's kernel for the CPU takes no bfloat16, which mixed precision brings.
    output.copy_(roi_align(input.float(), rois.float(), size, spatial_scale, sampling_ratio, aligned))


def _roi_align_backward(
    grad_output,
    rois,
    argmax_y,
    argmax_x,
    grad_input,
    aligned_height,
    aligned_width,
    spatial_scale,
    sampling_ratio,
    pool_mode,
    aligned,
) -> None:
    from torchvision.ops import roi_align

    _check_average(pool_mode)
    # RoIAlign is linear in its input: the gradient at any input, zeros here, is the gradient.
    with torch.enable_grad():
        zeros = torch.zeros_like(grad_input, dtype=torch.float32, requires_grad=True)
        size = (aligned_height, aligned_width)
        pooled = roi_align(zeros, rois.float(), size, spatial_scale, sampling_ratio, aligned)
        (gradient,) = torch.autograd.grad(pooled, zeros, grad_output.float())
    grad_input.copy_(gradient)


def _check_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' needs mmcv's compiled extension; pool_mode='avg' works"
        )
