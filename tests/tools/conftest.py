import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a tool in this process: its exit status and what it wrote, as a process of its own would have."""

    def tool(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        capfd.readouterr()
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
