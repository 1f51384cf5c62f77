"""Where a figure was measured."""

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

OPENMMLAB = ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmsegmentation', 'onedl-mmdetection')
PACKAGES = ('fewtokens', 'torch', 'triton', *OPENMMLAB, 'timm', 'open-clip-torch')


def describe_environment(device: torch.device, **settings: Any) -> dict[str, Any]:
    """Device, threads, versions and date, and the settings given."""
    return dict(
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else _cpu_name(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        date=datetime.date.today().isoformat(),
        **settings,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
