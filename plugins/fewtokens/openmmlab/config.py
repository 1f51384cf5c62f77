"""Finds OpenMMLab configs, by file or by name."""

import difflib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

PACKAGES = ('mmseg', 'mmdet')


def load_config(name: str | os.PathLike, cfg_options: dict[str, Any] | None = None) -> Config:
    """Loads a config file, or a config of an installed package such as `mmseg::segmenter/….py`.

    The package's scope becomes MMEngine's default, and `work_dir` is `work_dirs/NAME` where the config has none.

    Raises:
        FileNotFoundError: there is no such config; the nearest names are listed.
    """
    path = config_path(str(name))
    config = Config.fromfile(path)
    config.merge_from_dict(cfg_options or {})
    if config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / path.stem)
    init_default_scope(config.get('default_scope', 'mmengine'))
    return config


def config_path(name: str) -> Path:
    """The file of a config's name.

    Raises:
        FileNotFoundError: there is no such config; the nearest names are listed.
    """
    package, separator, relative = name.partition('::')
    path = _package_configs(package) / relative if separator else Path(name)
    if path.is_file():
        return path
    if separator:
        root = _package_configs(package)
        known = [f'{package}::{file.relative_to(root).as_posix()}' for file in root.rglob('*.py')]
    else:
        known = [str(file) for file in Path('configs').rglob('*.py')]
        known += [f'{p}::{file.name}' for p in PACKAGES if find_spec(p) for file in _package_configs(p).rglob('*.py')]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
    raise FileNotFoundError(f'there is no config {name!r}; the nearest are: {", ".join(near) or "none"}')


def _package_configs(package: str) -> Path:
    if package not in PACKAGES or find_spec(package) is None:
        raise FileNotFoundError(
            f'configs come from {" and ".join(PACKAGES)}, where installed; {package!r} is not there'
        )
    return Path(find_spec(package).origin).parent / '.mim' / 'configs'


def list_evaluators(setting: Any) -> list[Any]:
    """A config's evaluator, which may be one or a list of them, as a list."""
    return list(setting) if isinstance(setting, (list, tuple)) else [setting]
