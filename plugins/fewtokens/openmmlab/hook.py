from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn


@HOOKS.register_module()
class FewTokensHook(Hook):
    def __init__(self, sdpa: bool = False) -> None:
        self.sdpa = sdpa

    def before_run(self, runner: Runner) -> None:
        for module in runner.model.modules():
            if self.sdpa and isinstance(module, nn.MultiheadAttention):
                module.register_forward_pre_hook(_no_weights, with_kwargs=True)


def _no_weights(module, args, kwargs):
    return args, {**kwargs, 'need_weights': False}
