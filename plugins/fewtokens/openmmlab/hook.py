"""The plugin line of an OpenMMLab config."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..attachment import Attachment
from ..sdpa import use_sdpa
from .registry import Plugin, attach_plugin, build_reducer


@HOOKS.register_module()
class FewTokensHook(Hook):
    """Attaches a reducer, fused attention or both for the time of a run: training, validation or test.

    Args:
        reducer: such as `dict(type='Hourglass', after=10, grid=(28, 28))`, a reducer, or its text; for videos
            `dict(type='SegmentClustering', segments=6, clusters=49, after=6)`.
        sdpa: whether to switch the host's attention to PyTorch's fused one.

    Raises:
        ValueError: neither is given, or the reducer's settings are wrong.
    """

    # Before hooks that copy the model, such as the one for moving averages: the copy is attached as well.
    priority = 'VERY_HIGH'

    def __init__(self, reducer: dict[str, Any] | str | Plugin | None = None, sdpa: bool = False) -> None:
        if reducer is None and not sdpa:
            raise ValueError('FewTokensHook needs a reducer, sdpa=True or both')
        self.reducer = None if reducer is None else build_reducer(reducer)
        self.sdpa = sdpa
        self.attachments: list[Attachment] = []

    def before_run(self, runner: Runner) -> None:
        if not self.attachments:
            self.attach_to(runner)
        for attachment in self.attachments:
            runner.logger.info(attachment.summary())

    def attach_to(self, runner: Runner) -> None:
        """Attaches before the run begins, for whoever wants to watch it."""
        _refuse_fsdp(runner.model)
        if self.sdpa:
            self.attachments.append(use_sdpa(runner.model))
        if self.reducer is not None:
            try:
                self.attachments.append(attach_plugin(runner.model, self.reducer))
            except ValueError:
                self._detach()
                raise

    def after_run(self, runner: Runner) -> None:
        for attachment in self.attachments:
            runner.logger.info(attachment.summary())
        if self.reducer is not None and not self.took_effect:
            runner.logger.warning(f'{self.reducer} never took effect: no input had enough tokens for it')
        self._detach()

    @property
    def took_effect(self) -> bool:
        """Whether any forward pass had fewer tokens, since the run began."""
        return any(getattr(attachment, 'passes', 0) for attachment in self.attachments)

    def _detach(self) -> None:
        for attachment in self.attachments:
            attachment.remove()
        self.attachments = []


def _refuse_fsdp(model) -> None:
    if any(type(module).__name__ in ('FullyShardedDataParallel', 'FSDPModule') for module in model.modules()):
        raise ValueError(
            'fewtokens does not work inside FullyShardedDataParallel, which hides the blocks that it hooks; '
            'use DistributedDataParallel'
        )
