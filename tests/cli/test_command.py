"""The command `fewtokens`."""

import subprocess
import sys
from pathlib import Path

import pytest

import fewtokens
import fewtokens_command
from fewtokens.openmmlab.config import load_config

CLI = Path(fewtokens.__file__).parent / 'cli'
OPENMMLAB = ('mmengine', 'mmcv', 'mmseg', 'mmdet')


def python(code, absent=()):
    block = f'import sys\nfor name in {absent}:\n    sys.modules[name] = None\n'
    return subprocess.run([sys.executable, '-c', block + code], capture_output=True, text=True)


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command: its exit status, and what it wrote."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['fewtokens', *args])
        with pytest.raises(SystemExit) as end:
            fewtokens_command.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_every_tool_has_a_command():
    modules = {file.stem for file in CLI.glob('*.py') if 'def main(' in file.read_text()}
    assert {module for module, _ in fewtokens_command.COMMANDS.values()} == modules


def test_commands_are_listed_before_torch_is_imported():
    code = "import fewtokens_command\nsys.argv = ['fewtokens']\ntry:\n    fewtokens_command.main()\nfinally:\n"
    result = python(code + "    print('torch' in sys.modules)")
    listed = result.stdout.splitlines()
    assert result.returncode == 0 and listed[-1] == 'False', result.stderr
    assert [line.split()[0] for line in listed if line.startswith('  ')][: len(fewtokens_command.COMMANDS)] == list(
        fewtokens_command.COMMANDS
    )


@pytest.mark.parametrize('name', fewtokens_command.COMMANDS)
def test_a_commands_own_help_names_it(command, name):
    status, out, _ = command(name, '--help')
    assert status == 0 and out.startswith(f'usage: fewtokens {name} ')


def test_versions_and_unknown_commands(command):
    assert command('--version')[:2] == (0, f'fewtokens {fewtokens.__version__}\n')
    status, _, error = command('tuna')
    assert status == 2 and "invalid choice: 'tuna'" in error and "'tune'" in error


def test_mistakes_are_one_line(command):
    status, _, error = command('benchmark', 'none.py')
    assert status == 2 and error.startswith("error: there is no config 'none.py'") and error.count('\n') == 1
    status, _, error = command('benchmark', 'none.py', '--shape', '0', '64')
    assert status == 2 and error.endswith('argument --shape: 0 must be at least 1\n')


def test_models_of_other_libraries_need_no_openmmlab():
    modules = ['tune', 'compare_features', 'segment_anything', 'benchmark_video', 'benchmark_medoids']
    code = f'import importlib\nfor name in {modules}:\n    importlib.import_module(f"fewtokens.cli.{{name}}")\n'
    code += "import fewtokens_command\nsys.argv = ['fewtokens', 'test', 'config.py', 'file.pth']\n"
    result = python(code + 'fewtokens_command.main()', OPENMMLAB)
    assert result.returncode == 2 and result.stderr.strip().endswith(': pip install "fewtokens[openmmlab]"')
    assert result.stderr.splitlines()[-1].startswith('error: ') and 'Traceback' not in result.stderr


def test_what_openmmlab_itself_misses_is_one_line():
    """MMEngine is half imported then."""
    code = "import fewtokens_command\nsys.argv = ['fewtokens', 'index', 'folder']\nfewtokens_command.main()\n"
    result = python(code, ['cv2'])
    assert result.returncode == 2 and result.stderr.endswith(': pip install "fewtokens[report]"\n'), result.stderr
    assert 'Traceback' not in result.stderr


def test_published_settings_are_found_by_name(tmp_path):
    """Also by MMEngine itself, in a config that goes on from one."""
    name = 'fewtokens::hourglass/segmenter_vit-l_ade20k-640x640_10-28x28.py'
    config = load_config(name)
    assert config.custom_hooks[0].reducer.after == 10
    (tmp_path / 'mine.py').write_text(f"_base_ = '{name}'\nwork_dir = 'here'\n")
    inherited = load_config(tmp_path / 'mine.py')
    assert inherited.work_dir == 'here' and inherited.custom_hooks == config.custom_hooks
    assert inherited.model == config.model and "'_scope_': 'fewtokens'" not in inherited.pretty_text
