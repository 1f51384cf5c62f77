"""Several processes on a machine without accelerators."""

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device


def join_on_cpu(config: Config) -> None:
    """Joins torchrun's processes by gloo where there is no accelerator: MMEngine itself would ask for CUDA devices."""
    if config.launcher != 'pytorch' or get_device() != 'cpu':
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper['find_unused_parameters'] = config.get('find_unused_parameters', False)
    config.setdefault('model_wrapper_cfg', wrapper)
