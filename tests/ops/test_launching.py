from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch

from fewtokens.ops.triton import launching
from fewtokens.ops.triton.launching import launch, on_device_of


class Kernel:
    """Stands in for a kernel: `found` are the launches that it was looked up for, `run` those of what was found."""

    arg_names = ('x', 'more', 'out', 'n', 'BLOCK')

    def __init__(self):
        self.found, self.run = [], []

    def __getitem__(self, programs):
        def look_up(*args, **named):
            self.found.append((programs, args, named))
            return Compiled(self)

        return look_up


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, programs):
        return lambda *args: self.kernel.run.append((programs, args))


def plan(x, more, out, settings):
    return (len(x), 2), dict(BLOCK=settings, n=x.stride(0), num_warps=4)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(launching, '_known', {})


def test_a_launch_like_one_before_is_not_looked_up_again():
    kernel, (x, other, out) = Kernel(), torch.zeros(3, 5, 8)
    launch(kernel, plan, (x, None, out), 16)
    launch(kernel, plan, (other, None, out), 16)
    assert kernel.found == [((5, 2), (x, None, out), dict(BLOCK=16, n=8, num_warps=4))]
    ((programs, args),) = kernel.run
    # A compiled kernel is given all that the kernel's arguments are, in their order, and no options.
    assert programs == (5, 2, 1) and args[0] is other and args[1:] == (None, out, 8, 16)


@pytest.mark.parametrize(
    'change',
    [
        lambda x: dict(x=x[1:]),
        lambda x: dict(x=x.t()[:5, :5].contiguous().t()),
        lambda x: dict(x=torch.zeros(26)[1:].view(5, 5)),
        lambda x: dict(x=x.half()),
        lambda x: dict(more=x),
        lambda x: dict(settings=32),
        lambda x: dict(kernel=Kernel()),
    ],
    ids=['shape', 'strides', 'alignment', 'type', 'what was not there', 'settings', 'kernel'],
)
def test_what_a_launch_depends_on(change):
    first = dict(kernel=Kernel(), x=torch.zeros(8, 8)[:5, :5].contiguous(), more=None, settings=16)
    for call in (first, first | change(torch.zeros(8, 8)[:5, :5].contiguous())):
        launch(call['kernel'], plan, (call['x'], call['more'], call['x']), call['settings'])
    kernels = {id(each): each for each in (first['kernel'], call['kernel'])}.values()
    assert sum(len(kernel.found) for kernel in kernels) == 2 and not any(kernel.run for kernel in kernels)


def test_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(launching, 'MOST', 3)
    kernel = Kernel()
    for size in range(1, 11):
        launch(kernel, plan, (torch.zeros(size, 2), None, None), 16)
    assert len(kernel.found) == 10 and len(launching._known) <= 3


@pytest.mark.parametrize('index, wanted', [(0, nullcontext), (1, torch.cuda.device_of)])
def test_kernels_run_where_their_tensors_are(index, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    context = on_device_of(Mock(is_cuda=True, get_device=lambda: index))
    assert type(context) is wanted and getattr(context, 'idx', 0) == index
