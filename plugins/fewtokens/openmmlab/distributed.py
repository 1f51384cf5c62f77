"""Several processes that work on one test set or training."""

import gc

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner


def join_on_cpu(config: Config) -> None:
    """Joins torchrun's processes by gloo where there is no accelerator: MMEngine itself would ask for CUDA devices."""
    if config.launcher != 'pytorch' or get_device() != 'cpu':
        return
    if not is_distributed():
        torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper['find_unused_parameters'] = config.get('find_unused_parameters', False)
    config.setdefault('model_wrapper_cfg', wrapper)


def leave() -> None:
    """Ends the group of processes, and with it gloo's threads.

    One that lets go of a tensor while Python ends aborts its process, after all work is done (PyTorch's issue 190489).
    The threads end with the last reference to the group, and models wrapped for training are in reference cycles.
    """
    if is_distributed():
        gc.collect()
        torch.distributed.destroy_process_group()


def log_in_one_process(runner: Runner) -> None:
    """Takes the logger's hook from all processes but the first: each would write its metrics into the same file."""
    if not is_main_process():
        runner.hooks[:] = [hook for hook in runner.hooks if not isinstance(hook, LoggerHook)]
