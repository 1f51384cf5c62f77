"""Finds OpenMMLab configs, by file or by name, and says what is wrong in one."""

import difflib
import os
import textwrap
import traceback
from contextlib import redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

PACKAGES = ('mmseg', 'mmdet', 'fewtokens')


def load_config(name: str | os.PathLike, cfg_options: dict[str, Any] | None = None) -> Config:
    """Loads a config file, or a config of an installed package such as `mmseg::segmenter/….py`, ours included.

    The package's scope becomes MMEngine's default, and `work_dir` is `work_dirs/NAME` where the config has none.

    Raises:
        FileNotFoundError: there is no such config; the nearest names are listed.
        ValueError: the config cannot be read, or an option doesn't fit into it.
    """
    path = config_path(str(name))
    try:
        config = Config.fromfile(path)
        _forget_our_scope(config)
    except Exception as error:  # noqa: BLE001  a config is code
        raise ValueError(f'config {str(path)!r} cannot be read: {_place(error)}{_reason(error)}') from error
    _override(config, cfg_options or {})
    if config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / path.stem)
    scope = config.get('default_scope', 'mmengine')
    init_default_scope(scope)
    if scope in PACKAGES:
        _import_quietly(f'{scope}.datasets')
    return config


def _import_quietly(module: str) -> None:
    """Imports what a config of that scope needs anyway, without the line that its makers' own service is missing."""
    with redirect_stdout(StringIO()) as said, suppress(ImportError):
        import_module(module)
    print(*(line for line in said.getvalue().splitlines(True) if 'Could not import OneDL' not in line), sep='', end='')


def _forget_our_scope(setting: Any) -> None:
    """Takes off the mark that MMEngine puts on what stands in a `fewtokens::…` config that another goes on from.

    It would look for a registry of that scope; ours register with MMEngine's own, and configs name mmseg's beside them.
    """
    if isinstance(setting, (dict, Config)):
        if setting.get('_scope_') == 'fewtokens':
            setting.pop('_scope_')
        setting = [value for _, value in setting.items()]
    if isinstance(setting, (list, tuple)):
        for value in setting:
            _forget_our_scope(value)


def _override(config: Config, options: dict[str, Any]) -> None:
    try:
        # Together: one may delete what another sets anew.
        config.merge_from_dict(options)
    except Exception:  # noqa: BLE001  MMEngine raises whatever it runs into
        for key, value in options.items():
            try:
                config.merge_from_dict({key: value})
            except Exception as error:  # noqa: BLE001
                raise ValueError(f'--cfg-options {key}={value} does not fit the config: {_reason(error)}') from error
        raise


def config_mistake(error: Exception) -> str | None:
    """What is wrong with a config, if the error came up while something of it was read or built; else None."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames[-1].f_globals['__name__'].startswith('mmengine.config.'):
        return f'the config lacks a setting: {_reason(error)}'
    building = [frame for frame in frames if _builds(frame)]
    if not building:
        return None
    kind = building[-1].f_locals.get('obj_type') or building[-1].f_code.co_name.removeprefix('build_')
    return f"the config's {getattr(kind, '__name__', kind)} cannot be built: {_reason(error)}"


def _builds(frame: Any) -> bool:
    """Whether it is MMEngine's `build_from_cfg`, or a runner's `build_dataloader` and the like."""
    return frame.f_code.co_name.startswith('build_') and frame.f_globals['__name__'].startswith('mmengine.')


def _place(error: Exception) -> str:
    """The file and line in the chain of configs where reading ended."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    files = [
        frame.f_locals['filename']
        for frame, _ in frames
        if frame.f_code.co_name in ('_file2dict', '_is_lazy_import', '_parse_lazy_import')
    ]
    if not files:
        return ''
    lines = [line for frame, line in frames if frame.f_code.co_filename == files[-1]]
    line = getattr(error, 'lineno', None) or (lines[-1] if lines else None)
    return f'{os.path.basename(files[-1])}{f", line {line}" if line else ""}: '


def _reason(error: BaseException) -> str:
    """An error in one line."""
    error = error.__cause__ or error
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # its text alone has it in quotes
    if isinstance(error, ImportError) and error.__context__:
        text += f' ({error.__context__})'
    return textwrap.shorten(f'{type(error).__name__}: {text}', 400, placeholder=' …')


def config_path(name: str) -> Path:
    """The file of a config's name.

    Raises:
        FileNotFoundError: there is no such config; the nearest names are listed.
    """
    package, separator, relative = name.partition('::')
    path = _package_configs(package) / relative if separator else Path(name)
    if path.is_file():
        return path
    known = [] if separator else [str(file) for file in Path('configs').rglob('*.py')]
    for each in [package] if separator else filter(find_spec, PACKAGES):
        root = _package_configs(each)
        known += [f'{each}::{file.relative_to(root).as_posix()}' for file in root.rglob('*.py')]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
    raise FileNotFoundError(f'there is no config {name!r}; the nearest are: {", ".join(near) or "none"}')


def _package_configs(package: str) -> Path:
    spec = find_spec(package) if package in PACKAGES else None
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'configs come from {", ".join(PACKAGES)}, where installed; {package!r} is not there')
    return Path(spec.origin).parent / '.mim' / 'configs'


def list_evaluators(setting: Any) -> list[Any]:
    """A config's evaluator, which may be one or a list of them, as a list."""
    return list(setting) if isinstance(setting, (list, tuple)) else [setting]
