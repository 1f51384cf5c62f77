"""The plugin line of an OpenMMLab config."""

import difflib
from typing import Any

from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner

from ..attachment import Attachment, attached, refuse_sharded
from ..literals import call_with
from ..plugin import Plugin, attach_plugin
from ..sdpa import FusedAttention, use_sdpa
from .registry import as_text, build_reducer


@HOOKS.register_module()
class FewTokensHook(Hook):
    """Attaches a reducer, fused attention or both for the time of a run: training, validation or test.

    Args:
        reducer: such as `dict(type='Hourglass', after=10, grid=(28, 28))`, a reducer, or its text; for videos
            `dict(type='SegmentClustering', segments=6, clusters=49, after=6)`.
        sdpa: whether to switch the host's attention to PyTorch's fused one, if no other line has done so.

    Attributes:
        text: the reducer, as the setting says it.
        took_effect: whether any forward pass of the last run had fewer tokens, in any of the processes; None before,
            and where the run had no pass to make.

    Raises:
        ValueError: neither is given, or the reducer's settings are wrong.
    """

    # Before hooks that copy the model, such as the one for moving averages: the copy is attached as well.
    priority = 'VERY_HIGH'

    def __init__(self, reducer: dict[str, Any] | str | Plugin | None = None, sdpa: bool = False) -> None:
        if reducer is None and not sdpa:
            raise ValueError('FewTokensHook needs a reducer, sdpa=True or both')
        if not isinstance(sdpa, bool):
            raise ValueError(f'sdpa={sdpa!r} must be True or False')
        self.reducer = None if reducer is None else build_reducer(reducer)
        self.text = None if reducer is None else as_text(reducer)
        self.took_effect: bool | None = None
        self._iterations = 0
        self.sdpa = sdpa
        self.attachments: list[Attachment] = []

    def before_run(self, runner: Runner) -> None:
        self._iterations = 0
        if not self.attachments:
            self.attach_to(runner)
        for attachment in self.attachments:
            runner.logger.info(attachment.summary())

    def attach_to(self, runner: Runner) -> None:
        """Attaches before the run begins, for whoever wants to watch it."""
        refuse_sharded(runner.model)
        if self.sdpa and not any(isinstance(other, FusedAttention) for other in attached(runner.model)):
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
        if self.reducer is not None:
            self.took_effect = self._took_effect()
            if self.took_effect is False:
                runner.logger.warning(never_took_effect(self.reducer))
        self._detach()

    def _before_iter(self, *args: Any, **options: Any) -> None:
        self._iterations += 1

    def _took_effect(self) -> bool | None:
        passes = sum(getattr(attachment, 'passes', 0) for attachment in self.attachments)
        # A process may have seen small images alone. A training that was resumed at its end has nothing to do.
        iterations, passes = map(sum, zip(*all_gather_object((self._iterations, passes))))
        return passes > 0 if iterations else None

    def _detach(self) -> None:
        for attachment in self.attachments:
            attachment.remove()
        self.attachments = []


def never_took_effect(reducer: Plugin) -> str:
    return f'{reducer} never took effect: no input had enough tokens for it'


def plugin_lines(config: Config) -> list[FewTokensHook]:
    """The plugin lines of a config, built as MMEngine's runner will build them.

    Raises:
        ValueError: a hook is none or of no known type, or a plugin line's settings are wrong.
    """
    custom, default = config.get('custom_hooks') or [], config.get('default_hooks') or {}
    if not isinstance(custom, (list, tuple)):
        raise ValueError(f'custom_hooks={custom!r} must be a list of hooks')
    if not isinstance(default, dict):
        raise ValueError(f'default_hooks={default!r} must be a dict of hooks')
    hooks = [*custom, *(hook for hook in default.values() if hook is not None)]
    return [built for hook in hooks if isinstance(built := _build_line(hook), FewTokensHook)]


def _build_line(hook: Any) -> Hook | None:
    """The hook, if it is one already or a plugin line; other hooks are not built."""
    if isinstance(hook, Hook):
        return hook
    if not isinstance(hook, dict) or 'type' not in hook:
        raise ValueError(f"{hook!r} is no hook: it must be a dict with a type, such as dict(type='FewTokensHook', …)")
    cls = _find_hook(hook['type'], hook.get('_scope_'))
    if not (isinstance(cls, type) and issubclass(cls, FewTokensHook)):
        return None
    # The runner takes the priority.
    return call_with(cls, {name: hook[name] for name in hook if name not in ('type', '_scope_', 'priority')})


def _find_hook(kind: Any, scope: str | None) -> Any:
    if not isinstance(kind, str):
        return kind
    with HOOKS.switch_scope_and_registry(scope) as registry:
        try:
            cls = registry.get(kind)
        except RuntimeError:  # a module that cannot be imported
            cls = None
        if cls is None:
            known = sorted({*registry.module_dict, *HOOKS.module_dict})
            near = ', '.join(difflib.get_close_matches(kind, known, n=2) or known)
            place = DefaultScope.get_current_instance()
            where = f' in scope {place.scope_name!r}' if place else ''
            raise ValueError(f'there is no hook {kind!r}{where}; there is {near}')
    return cls
