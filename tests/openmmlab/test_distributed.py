import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fewtokens.openmmlab.distributed import join_on_cpu, leave


def gloo_threads() -> int:
    return sum('gloo' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))


def work(_: int) -> None:
    os.environ |= dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
    join_on_cpu(Config(dict(launcher='pytorch')))
    import open_clip.loss  # noqa: F401  its import of torch.distributed.nn comes late

    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    model.cycle = [model]
    model(torch.ones(1, 2)).backward()
    assert gloo_threads() > 0
    del model
    leave()
    assert gloo_threads() == 0 and not torch.distributed.is_initialized()
    leave()


@pytest.mark.skipif(sys.platform != 'linux', reason="looks into Linux' list of threads")
def test_no_thread_outlives_the_group():
    """One that does may abort the process at its end."""
    torch.multiprocessing.spawn(work)
