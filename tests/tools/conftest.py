import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.visualization import Visualizer
from scenes import checkpoint, config_file, scenes  # noqa: F401  fixtures

TOOLS = Path(__file__).parents[2] / 'tools'

# transformers needs that much.
collect_ignore = [] if sys.version_info >= (3, 11) else ['test_segment_anything.py']


def forget_visualizers(cls):
    """MMEngine gives a name's first visualizer to all who ask later, of whatever kind they want."""
    cls._instance_dict.clear()
    for each in cls.__subclasses__():
        forget_visualizers(each)


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a tool in this process: its exit status and what it wrote, as a process of its own would have."""

    def tool(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        capfd.readouterr()
        forget_visualizers(Visualizer)
        try:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
            status = 0
        except SystemExit as end:
            status = end.code
        return SimpleNamespace(returncode=status, **capfd.readouterr()._asdict())

    return tool


@pytest.fixture
def fails(run):
    def tool(name, *args, message):
        result = run(name, *args)
        assert result.returncode == 2 and message in result.err.splitlines()[-1], result.err

    return tool


@pytest.fixture
def linear_dtypes():
    """Of what linear layers anywhere put out during the test."""
    seen = set()

    def look(module, args, output):
        if isinstance(module, torch.nn.Linear):
            seen.add(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(look)
    yield seen
    handle.remove()
