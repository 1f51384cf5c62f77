"""One job shared by several processes, started by torchrun, slurm or MPI."""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_dist_info, init_dist, is_distributed

from ..openmmlab.distributed import join_on_cpu

# Those that finish wait for the slowest, which may have hours to go.
PATIENCE = timedelta(days=7)

Result = TypeVar('Result')


def join(launcher: str) -> None:
    """Joins the processes of a launcher, by gloo where there is no accelerator. MMEngine needs one."""
    if launcher == 'none' or is_distributed():
        return
    if launcher == 'slurm' and get_device() == 'cpu':
        _name_slurm_processes()
        launcher = 'pytorch'
    join_on_cpu(Config(dict(launcher=launcher)))
    if not is_distributed():
        init_dist(launcher)


def _name_slurm_processes() -> None:
    """Tells torch what slurm calls its processes."""
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        nodes = ['scontrol', 'show', 'hostnames', os.environ['SLURM_JOB_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.run(nodes, check=True, capture_output=True, text=True).stdout.split()[0]


class Processes:
    """Those that share a job: all that were joined, or this one alone."""

    def __init__(self) -> None:
        self._group = dist.new_group(backend='gloo', timeout=PATIENCE) if is_distributed() else None
        self.rank, self.number = get_dist_info()

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Does something in the first process only; all get its result, or its error."""
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = work()
            except (ValueError, OSError, ImportError) as error:
                outcome[1] = error
        if self._group:
            self._together(lambda: dist.broadcast_object_list(outcome, src=0, group=self._group))
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def wait(self) -> None:
        """Until every process has come here."""
        if self._group:
            self._together(lambda: dist.barrier(group=self._group))

    def _together(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RuntimeError as error:
            raise ValueError('another process of this job failed: see its message') from error
