import subprocess
import sys
import types

import pytest
import torch

import fewtokens.openmmlab  # noqa: F401
from fewtokens.openmmlab.compiled_ops import provide_compiled_ops


def run(code):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_import_before_openmmlab():
    result = run('import fewtokens.openmmlab, mmdet.models, mmseg.models, mmcv.ops; print("works")')
    assert result.returncode == 0 and 'works' in result.stdout, result.stderr


@pytest.mark.parametrize('first', ['mmcv', 'mmengine', 'mmseg', 'mmdet'])
def test_import_after_openmmlab(first):
    result = run(f'import {first}, fewtokens.openmmlab, mmdet.models, mmseg.models; print("works")')
    assert result.returncode == 0 and 'works' in result.stdout, result.stderr


def test_import_after_a_failed_one():
    code = """
try:
    import mmseg.models
except ModuleNotFoundError:
    pass
import fewtokens.openmmlab, mmseg.models
print("works")
"""
    result = run(code)
    assert result.returncode == 0 and 'works' in result.stdout, result.stderr


def test_compiled_ops_of_mmcv_are_left_alone(monkeypatch):
    own = types.ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', own)
    assert provide_compiled_ops() is False and sys.modules['mmcv._ext'] is own


def test_nms_keeps_the_best_of_what_overlaps():
    from mmcv.ops import nms

    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30.0]])
    kept, index = nms(boxes, torch.tensor([0.5, 0.9, 0.3]), iou_threshold=0.5)
    assert index.tolist() == [1, 2]
    # 9 wide with offset 0, 10 with offset 1: the overlap of [0, 9] and [5, 14] is 4 of 14 or 5 of 15.
    boxes = torch.tensor([[0, 0, 9, 0.0], [5, 0, 14, 0.0]])
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=0.3, offset=1)[1]) == 1
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=0.4, offset=1)[1]) == 2


def test_roi_align_forward_and_backward():
    from mmcv.ops import roi_align
    from torchvision.ops import roi_align as expected_op

    rois = torch.tensor([[0, 1.0, 2.0, 9.0, 8.0], [1, 0.0, 0.0, 5.5, 3.0]])
    x = torch.randn(2, 3, 12, 12, requires_grad=True)
    weights = torch.randn(2, 3, 4, 4)
    results = []
    for op in (
        lambda: roi_align(x, rois, (4, 4), 0.5, 2, 'avg', True),
        lambda: expected_op(x, rois, (4, 4), 0.5, 2, True),
    ):
        out = op()
        results.append((out, *torch.autograd.grad((out * weights).sum(), x)))
    for given, expected in zip(*results):
        torch.testing.assert_close(given, expected)


def test_roi_align_under_mixed_precision():
    from mmcv.ops import roi_align

    # Coordinates above 256 have steps of 2 in bfloat16: the boxes must stay as they are.
    rois = torch.tensor([[0, 257.0, 257.0, 263.0, 263.0]])
    ramp = torch.arange(300.0).expand(1, 1, 300, 300)
    x = (ramp % 8).bfloat16().requires_grad_()
    out = roi_align(x, rois, (2, 2), 1.0, 2, 'avg', True)
    expected = roi_align(x.float(), rois, (2, 2), 1.0, 2, 'avg', True)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=0.02, rtol=0)
    (gradient,) = torch.autograd.grad(out.float().sum(), x)
    assert gradient.dtype == torch.bfloat16 and gradient.float().sum().item() == pytest.approx(4, abs=0.05)


def test_missing_op_says_so():
    from mmcv.ops import soft_nms

    with pytest.raises(NotImplementedError, match="'softnms' needs mmcv's compiled extension"):
        soft_nms(torch.rand(3, 4), torch.rand(3))
